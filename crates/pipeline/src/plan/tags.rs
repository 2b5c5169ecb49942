//! Rules for tags, checked: every template and pattern is read before there is an image to name.

use super::Planner;
use crate::{
    Flavor, Latest, RefEvent, Shorthand, TagKind, TagRule, codes,
    file::{self, At, Tag},
    tags::{check_date, check_expressions, expression_templates},
};

/// Kinds of rules that are no names which anybody gives an image, as `edge` is.
const NAMES_OF_RULES: [&str; 4] = ["semver", "pep440", "sha", "schedule"];

impl Planner<'_> {
    pub(super) fn tag_rule(&mut self, tag: &Tag) -> TagRule {
        let when = self.conditions(&tag.when);
        if let Some(template) = &tag.tag {
            self.check_tag_text(template);
            // Made legal, `localhost:5000/app:1.0` would be a tag that nobody looks for.
            if let Some(colon) = last_colon(&template.value) {
                let message = format!("`{}` is no tag: a tag has no colon", template.value);
                let wanted = &template.value[colon + 1..];
                self.error(codes::INVALID_VALUE, message, &template.span).help =
                    Some(format!("the repository is that of `image` or `publish.to`; write `{wanted}` here"));
            }
            if NAMES_OF_RULES.contains(&&*template.value) {
                let name = &template.value;
                let message = format!("`{name}` would be a tag of that very name");
                self.error(codes::INVALID_VALUE, message, &template.span).help =
                    Some(format!("the rule is `{{type: {name}}}`; the tag is `{{type: raw, value: {name}}}`"));
            }
        }
        let has_more = tag.prefix.is_some() || tag.suffix.is_some() || tag.enable.is_some() || tag.priority.is_some();
        let is_braced = tag.tag.as_ref().is_some_and(|tag| tag.value.contains("{{"));
        match (&tag.tag, &tag.kind) {
            (Some(template), None) if !has_more && !is_braced => {
                TagRule { tag: template.value.clone(), when, shorthand: None }
            }
            (template, kind) => {
                let shown = match (template, kind) {
                    (Some(template), _) => template.value.clone(),
                    (None, kind) => shown(tag, kind.as_ref().map_or("raw", |kind| &kind.value)),
                };
                TagRule { tag: shown, when, shorthand: Some(self.shorthand(tag)) }
            }
        }
    }

    fn shorthand(&mut self, tag: &Tag) -> Shorthand {
        let kind = tag.kind.as_ref().and_then(|kind| TagKind::parse(&kind.value)).unwrap_or_default();
        let patterns = if kind == TagKind::Match { &[][..] } else { &tag.pattern[..] };
        let texts = [&tag.value, &tag.branch, &tag.prefix, &tag.suffix, &tag.enable].into_iter().flatten();
        for text in texts.chain(patterns) {
            self.check_tag_text(text);
        }
        let zone = tag.tz.as_ref().map(|tz| tz.value.as_str());
        let date = tag.format.as_ref().or(tag.tz.as_ref()).filter(|_| kind == TagKind::Date);
        if let Some(given) = date
            && let Err(error) = check_date(tag.format.as_ref().map_or("YYYYMMDD", |format| &format.value), zone)
        {
            self.error(codes::INVALID_VALUE, error, &given.span);
        }
        let text = |value: &Option<At<String>>| value.as_ref().map(|value| value.value.clone());
        Shorthand {
            kind,
            pattern: tag.pattern.iter().map(|pattern| pattern.value.clone()).collect(),
            value: text(&tag.value).or_else(|| text(&tag.tag)),
            event: tag.event.as_ref().map(|event| match event.value.as_str() {
                "tag" => RefEvent::Tag,
                "pr" => RefEvent::Pr,
                _ => RefEvent::Branch,
            }),
            branch: text(&tag.branch),
            long: kind == TagKind::Sha && tag.format.as_ref().is_some_and(|format| format.value == "long"),
            format: text(&tag.format).filter(|_| kind == TagKind::Date),
            tz: text(&tag.tz),
            of_run: tag.of.as_ref().is_some_and(|of| of.value == "run"),
            group: tag.group.unwrap_or(0),
            within: text(&tag.within),
            major_zero: tag.major_zero,
            prefix: text(&tag.prefix),
            suffix: text(&tag.suffix),
            enable: text(&tag.enable),
            priority: tag.priority,
        }
    }

    pub(super) fn flavor(&mut self, given: &file::Flavor) -> Flavor {
        for text in [&given.prefix, &given.suffix].into_iter().flatten().chain(&given.variants) {
            self.check_tag_text(text);
        }
        let text = |value: &Option<At<String>>| value.as_ref().map(|value| value.value.clone()).unwrap_or_default();
        Flavor {
            latest: match given.latest.as_ref().map(|latest| latest.value.as_str()) {
                Some("true") => Latest::True,
                Some("false") => Latest::False,
                _ => Latest::Auto,
            },
            prefix: text(&given.prefix),
            suffix: text(&given.suffix),
            prefix_latest: given.prefix_latest,
            suffix_latest: given.suffix_latest,
            variants: given.variants.iter().map(|variant| variant.value.clone()).collect(),
        }
    }

    /// Checks what stands between braces of both kinds.
    fn check_tag_text(&mut self, text: &At<String>) {
        for template in expression_templates(&text.value) {
            self.check_template(&At::new(template.to_owned(), text.span.clone()));
        }
        if let Err((message, near)) = check_expressions(&text.value) {
            self.error(codes::BAD_TEMPLATE, message, &text.span).label =
                near.map(|near| format!("did you mean `{near}`?"));
        }
    }
}

/// Where the last colon of a template is, outside of `${…}` and `{{…}}`.
fn last_colon(template: &str) -> Option<usize> {
    let (mut depth, mut found) = (0_usize, None);
    for (index, c) in template.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => found = Some(index),
            _ => {}
        }
    }
    found
}

/// `type=semver,pattern={{major}}`.
fn shown(tag: &Tag, kind: &str) -> String {
    let words = [("value", &tag.value), ("event", &tag.event), ("branch", &tag.branch), ("format", &tag.format)];
    let patterns = tag.pattern.iter().map(|pattern| format!("pattern={}", pattern.value));
    let words = words.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?.value)));
    std::iter::once(format!("type={kind}")).chain(patterns).chain(words).collect::<Vec<_>>().join(",")
}
