//! What a container is made from, as one value: another value means that it has to be made anew.

use compose::Service;
use oci::Digest;
use serde_json::{Value, json};

use crate::{image::Image, spec::Draft};

/// As Compose's own hash, it leaves out what changes nothing in the container: how its image is built, what it waits for, how
/// many there are. The image counts by its content, and so do configs and secrets.
pub(crate) fn of(service: &Service, image: &Image, draft: &Draft) -> Digest {
    let definition = Service {
        build: None,
        pull_policy: None,
        depends_on: Vec::new(),
        profiles: Vec::new(),
        replicas: None,
        watch: Vec::new(),
        ready: None,
        ..service.clone()
    };
    let mut definition = serde_json::to_value(definition).unwrap_or_default();
    without_places(&mut definition);
    let files = &draft.spec.surroundings.files;
    let files: Vec<Value> = files
        .iter()
        .map(|file| json!([file.target, Digest::of(file.content.expose()), file.mode, file.uid, file.gid]))
        .collect();
    let volumes: Vec<&str> = draft.spec.surroundings.volumes.iter().map(|volume| volume.name.as_str()).collect();
    let networks = draft.spec.attachment.networks.iter().map(|network| {
        let range = network.range.as_ref().map(|range| (range.subnet, range.gateway));
        (network.name.as_str(), network.internal, range)
    });
    let networks: Vec<_> = networks.collect();
    let whole =
        json!({"service": definition, "image": image.id, "files": files, "volumes": volumes, "networks": networks});
    Digest::of(whole.to_string().as_bytes())
}

/// Where something stands in the file changes nothing.
fn without_places(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| name != "place" || !(value.is_null() || is_place(value)));
            fields.values_mut().for_each(without_places);
        }
        Value::Array(items) => items.iter_mut().for_each(without_places),
        _ => {}
    }
}

/// A variable may be called so as well.
fn is_place(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.contains_key("line") && fields.contains_key("column"))
}
