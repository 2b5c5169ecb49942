//! Naming a manifest by several tags: in one step where the registry can (distribution-spec, `tag` parameter and `OCI-Tag`),
//! digest first and names last elsewhere.

use bytes::Bytes;
use oci::{Digest, Reference};
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderValue, IF_MATCH, IF_NONE_MATCH},
};

use super::{Client, auth::Scope, transport::Call};
use crate::{ErrorKind, RegistryError};

/// What must hold of tags when they are written. Registries that know no conditional requests write them all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TagCondition {
    /// Nothing.
    #[default]
    Any,
    /// None of them exists.
    Absent,
    /// Each of them names one of these now.
    Names(Vec<Digest>),
}

/// How tags were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagsWritten {
    /// What they name.
    pub digest: Digest,
    /// All of them in one step: nobody saw one without the others.
    pub is_atomic: bool,
}

impl Client {
    /// Writes a manifest or index under its digest and names it by tags. What it refers to must be there. A condition that
    /// does not hold is [`ErrorKind::TagChanged`]; tags that the registry's rules are against, [`ErrorKind::Denied`].
    /// `written` hears each tag once it is there, also when a later one fails.
    pub async fn put_manifest_tags(
        &self,
        repository: &Reference,
        tags: &[String],
        condition: &TagCondition,
        media_type: &str,
        bytes: impl Into<Bytes>,
        written: &mut (dyn FnMut(String) + Send),
    ) -> Result<TagsWritten, RegistryError> {
        let outcome = self.put_tags_kind(repository, tags, condition, media_type, bytes.into(), written).await;
        outcome.map_err(|kind| kind.during("push", repository.repository()))
    }

    async fn put_tags_kind(
        &self,
        repository: &Reference,
        tags: &[String],
        condition: &TagCondition,
        media_type: &str,
        bytes: Bytes,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<TagsWritten, ErrorKind> {
        let digest = Digest::of(&bytes);
        if let [tag] = tags {
            self.put_tag(repository, tag, condition, media_type, bytes).await?;
            tell(tag.clone());
            return Ok(TagsWritten { digest, is_atomic: true });
        }
        let pairs = tags.iter().map(|tag| ("tag", tag));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let path = format!("manifests/{digest}?{query}");
        let call = Call::new(Method::PUT, repository, path, Scope::push(repository));
        let call = under(condition, call)?.header(CONTENT_TYPE, header(media_type)?).body(bytes.clone());
        let written: Vec<String> = match self.transport.send(&call).await {
            Ok(response) => {
                let values = response.headers().get_all("oci-tag").iter().filter_map(|value| value.to_str().ok());
                values.flat_map(|list| list.split(',')).map(|tag| tag.trim().to_owned()).collect()
            }
            Err(ErrorKind::Unexpected { status: 412, message, .. }) => return Err(ErrorKind::TagChanged { message }),
            // More tags than it takes at once, or a path that some proxy takes offence at.
            Err(ErrorKind::Unexpected { status: 400 | 414, .. }) if !tags.is_empty() => {
                self.put_kind(&repository.with_digest(digest.clone()), media_type, bytes.clone()).await?;
                Vec::new()
            }
            Err(kind) => return Err(kind),
        };
        let mut is_atomic = true;
        tags.iter().filter(|tag| written.contains(tag)).for_each(|tag| tell(tag.clone()));
        for tag in tags.iter().filter(|tag| !written.contains(tag)) {
            is_atomic = false;
            self.put_tag(repository, tag, condition, media_type, bytes.clone()).await?;
            tell(tag.clone());
        }
        Ok(TagsWritten { digest, is_atomic })
    }

    async fn put_tag(
        &self,
        repository: &Reference,
        tag: &str,
        condition: &TagCondition,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), ErrorKind> {
        let call = self.manifest_call(Method::PUT, &repository.with_tag(tag)).scope(Scope::push(repository));
        let sent = Digest::of(&bytes);
        let call = under(condition, call)?.header(CONTENT_TYPE, header(media_type)?).body(bytes);
        match self.send_manifest(&call, sent).await {
            Ok(_) => Ok(()),
            Err(ErrorKind::Unexpected { status: 412, message, .. }) => Err(ErrorKind::TagChanged { message }),
            Err(kind) => Err(kind),
        }
    }
}

/// The call on a condition.
pub(super) fn under(condition: &TagCondition, call: Call) -> Result<Call, ErrorKind> {
    Ok(match condition {
        TagCondition::Any => call,
        TagCondition::Absent => call.header(IF_NONE_MATCH, HeaderValue::from_static("*")),
        TagCondition::Names(digests) => {
            let list: Vec<String> = digests.iter().map(|digest| format!("\"{digest}\"")).collect();
            call.header(IF_MATCH, header(&list.join(", "))?)
        }
    })
}

fn header(text: &str) -> Result<HeaderValue, ErrorKind> {
    HeaderValue::from_str(text).map_err(|_| ErrorKind::malformed("a header is not ASCII"))
}
