//! `seatrial.yaml` to a [`Plan`], and the plan to a run.
//!
//! Does not know which engine builds and starts containers, nor who listens to events. Start at [`prepare`](fn@prepare)
//! (directory to plan) and [`run`](fn@run) (plan to [`Outcome`]).

pub mod codes;
mod context;
pub use compose::duration;
pub use file::SbomFormat;
pub mod file;
mod interpolate;
mod outcome;
mod plan;
mod prepare;
mod report;
mod run;
mod source;
mod tags;
pub mod version;

pub use context::{OpenSigner, Registry, RunContext, RunError, RunOptions, Stages};
pub use interpolate::{OUR_NAMES, TemplateError, Values, interpolate};
pub use outcome::{
    FileFate, Foreseen, FormerAttempt, GateFailure, GateOutcome, HealthOutcome, KeptTag, Outcome, Published,
    PublishedFile, SkippedTag, TagFate, TriedImage, counts,
};
pub use packages::PublishError;
pub use plan::{
    BeforePlan, BoundsPlan, BuildPlan, CommandPlan, EnvironmentPlan, FilesPlan, GatePlan, HealthPlan, ImagePlan,
    KeepPlan, LimitsPlan, MountPlan, Plan, PlanInputs, PublishPlan, SecretPlan, SecretUsePlan, ServicesPlan, SignPlan,
    TestPlan, TmpfsPlan, TrustPlan, TrustedKey, UlimitPlan, UsesPlan, Version, plan,
};
pub use prepare::{
    FILE_NAME, Invalid, PrepareError, PrepareRequest, Prepared, SourceText, find_file, init_yaml, prepare,
};
pub use report::{Case, CaseOutcome, InvalidReport, junit};
pub use run::{
    FILES_STAGE, GATE_VERDICTS, StageRecord, file_name, git_ref, has_passed, is_claim_tag, known_secrets,
    name_in_image, public_url, report_files, resource_of, run, stage_record,
};
pub use services::{ServiceError, ServiceFailure, ServiceOutcome};
pub use source::{Head, Source, SourceEvent, changed_paths, read_source, run_url};
pub use tags::{
    ChosenTags, Flavor, Judgement, Latest, PlainTag, RefEvent, Shorthand, TagInputs, TagKind, TagRule, TagState, When,
    choose_tags, choose_tags_by, higher_tag, is_moving, judge_tag, legal_tag,
};
