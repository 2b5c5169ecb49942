//! What is made of the source before the image is built, checked.

use globset::GlobBuilder;
use oci::Reference;

use super::{BeforePlan, CommandPlan, Planner};
use crate::{
    codes,
    file::{At, Before, PipelineFile},
};

impl Planner<'_> {
    pub(super) fn before(&mut self, file: &PipelineFile) -> Vec<BeforePlan> {
        file.before.iter().map(|entry| self.before_entry(entry)).collect()
    }

    fn before_entry(&mut self, entry: &Before) -> BeforePlan {
        BeforePlan {
            image: entry.image.as_ref().and_then(|image| self.before_image(image)),
            commands: entry
                .run
                .iter()
                .map(|run| CommandPlan {
                    run: run.value.clone(),
                    place: self.place(&run.span),
                    user: None,
                    secrets: Vec::new(),
                })
                .collect(),
            output: entry.output.iter().filter_map(|pattern| self.output(pattern)).collect(),
            environment: self.pairs(&entry.environment),
            image_place: entry.image.as_ref().and_then(|image| self.place(&image.span)),
            place: self.place(&entry.span),
        }
    }

    fn before_image(&mut self, image: &At<String>) -> Option<String> {
        let text = self.fill(image)?;
        if let Err(error) = text.parse::<Reference>() {
            let message = format!("`{text}` is not the name of an image: {}", error.reason);
            self.error(codes::INVALID_VALUE, message, &image.span);
        }
        Some(text)
    }

    /// A pattern within the context.
    fn output(&mut self, pattern: &At<String>) -> Option<String> {
        let text = self.fill(pattern)?;
        let text = text.strip_prefix("./").unwrap_or(&text).to_owned();
        if text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..") {
            self.error(codes::LEAVES_REPOSITORY, format!("`{text}` is not within the build context"), &pattern.span);
            return None;
        }
        if let Err(error) = GlobBuilder::new(&text).literal_separator(true).build() {
            self.error(codes::INVALID_VALUE, format!("`{text}` is no pattern: {}", error.kind()), &pattern.span);
            return None;
        }
        Some(text)
    }
}
