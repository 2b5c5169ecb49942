//! `seatrial.yaml` to a [`Plan`], and the plan to a run.
//!
//! Does not know which engine builds and starts containers, nor who listens to events. Start at [`prepare`](fn@prepare)
//! (directory to plan) and [`run`](fn@run) (plan to [`Outcome`]).

pub mod codes;
mod context;
pub use compose::duration;
pub mod file;
mod interpolate;
mod outcome;
mod plan;
mod prepare;
mod run;
mod source;
mod tags;
pub mod version;

pub use context::{Registry, RunContext, RunError, RunOptions, Stages};
pub use interpolate::{OUR_NAMES, TemplateError, Values, interpolate};
pub use outcome::{
    Foreseen, GateFailure, GateOutcome, HealthOutcome, KeptTag, Outcome, Published, SkippedTag, TagFate, TriedImage,
};
pub use plan::{
    BeforePlan, BuildPlan, CommandPlan, GatePlan, HealthPlan, KeepPlan, LimitsPlan, MountPlan, Plan, PlanInputs,
    PublishPlan, TestPlan, Version, plan,
};
pub use prepare::{
    FILE_NAME, Invalid, PrepareError, PrepareRequest, Prepared, SourceText, find_file, init_yaml, prepare,
};
pub use run::{StageRecord, run, stage_record};
pub use source::{Head, Source, SourceEvent, changed_paths, read_source};
pub use tags::{ChosenTags, Judgement, TagRule, TagState, When, choose_tags, is_moving, judge_tag, legal_tag};
