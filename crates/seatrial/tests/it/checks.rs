//! `check`, `build --check`, `build --call`, and what a build says of its Dockerfile.

use expect_test::expect;
use serde_json::{Value, json};

use crate::{world, world_with_image};

/// OASIS's schema of SARIF 2.1.0, unchanged (oasis-tcs/sarif-spec, `Schemata/sarif-schema-2.1.0.json`).
const SARIF_SCHEMA: &str = include_str!("sarif-schema-2.1.0.json");

const DOUBTFUL: &str = "FROM scratch AS Base\nCOPY $foo /\nCMD x\n";

fn parsed(text: impl AsRef<str>) -> Value {
    serde_json::from_str(text.as_ref()).unwrap_or_else(|error| panic!("{error} in {}", text.as_ref()))
}

#[test]
fn findings_for_people() {
    let world = world();
    world.file("Dockerfile", "# check=skip=RootUser,MissingHealthcheck\nFROM scratch AS Base\nARG foo\nCOPY $fooo /\n");
    let finished = world.seatrial(["build", "--check"]).run().exits(1);
    finished
        .stdout_is(&expect![[r#"
            warning[ST201]: stage name 'Base' should be lowercase (StageNameCasing)
             --> Dockerfile:2:17
              |
            2 | FROM scratch AS Base
              |                 ^^^^

            warning[ST211]: usage of undefined variable '$fooo' (UndefinedVar)
             --> Dockerfile:4:6
              |
            4 | COPY $fooo /
              |      ^^^^^ did you mean `$foo`?
        "#]])
        .stderr_is(&expect![[r#"
            Dockerfile: 2 warnings
        "#]]);
    world.seatrial(["check"]).run().exits(0).stdout_has("(StageNameCasing)");
    world.seatrial(["check", "--strict"]).run().exits(1);
    world.file("Dockerfile", "# check=skip=all\nFROM scratch AS Base\n");
    world.seatrial(["build", "--check"]).run().exits(0).stderr_has("nothing to complain about");
}

#[test]
fn findings_as_docker_prints_them() {
    let world = world();
    world.file("Dockerfile", DOUBTFUL);
    for arguments in [vec!["build", "--call=check,format=json"], vec!["build", "--check", "--format=json"]] {
        let found = parsed(world.seatrial(arguments).run().exits(1).stdout());
        let warnings = found["warnings"].as_array().unwrap();
        let names: Vec<&str> = warnings.iter().map(|warning| warning["ruleName"].as_str().unwrap()).collect();
        assert_eq!(names, ["StageNameCasing", "UndefinedVar", "JSONArgsRecommended"]);
        let first = &warnings[0];
        assert_eq!(first["description"], "Stage names should be lowercase");
        assert_eq!(first["url"], "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/");
        assert_eq!(first["detail"], "Stage name 'Base' should be lowercase");
        assert_eq!(first["location"], json!({"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}));
        assert_eq!(warnings[1]["detail"], "Usage of undefined variable '$foo'");
        assert_eq!(found["sources"][0]["filename"], "Dockerfile");
        assert_eq!(found["sources"][0]["data"], "RlJPTSBzY3JhdGNoIEFTIEJhc2UKQ09QWSAkZm9vIC8KQ01EIHgK");
        assert_eq!(found.get("buildError"), None);
    }
    world.file("Dockerfile", &format!("# check=error=true\n{DOUBTFUL}"));
    let found = parsed(world.seatrial(["check", "--format=json"]).run().exits(2).stdout());
    assert_eq!(
        found["buildError"]["message"],
        "lint violation found for rules: JSONArgsRecommended, StageNameCasing, UndefinedVar"
    );
    world.file("Dockerfile", "FROM scratch\nCOPPY a b\n");
    let found = parsed(world.seatrial(["check", "--format=json"]).run().exits(2).stdout());
    assert_eq!(found["warnings"], json!([]));
    assert_eq!(found["buildError"]["message"], "Unknown instruction `COPPY` (did you mean COPY?)");
    assert_eq!(found["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
}

#[test]
fn sarif_is_what_its_schema_says() {
    let world = world();
    let schema = parsed(SARIF_SCHEMA);
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("sarif.json", schema).unwrap();
    let schema = compiler.compile("sarif.json", &mut schemas).unwrap();
    let check = |log: &Value| {
        if let Err(error) = schemas.validate(log, schema) {
            panic!("{error:#}\n{log:#}");
        }
    };
    let odd = "odd näme, 100%:2.Dockerfile";
    for text in [
        DOUBTFUL,
        "FROM scratch\n",
        "",
        "FRO\n",
        "FROM scratch\r\nENV ä 😀\r\nRUN <<E\n\nE\n",
        "# check=what=1\nFROM a\n",
    ] {
        world.file(odd, text).file("seatrial.yaml", &format!("image: localhost/x\nbuild: {{dockerfile: {odd:?}}}\n"));
        let log = parsed(world.seatrial(["check", "--format=sarif"]).run().stdout());
        check(&log);
        let log = parsed(world.seatrial(["check", odd, "--format=sarif"]).run().stdout());
        check(&log);
        let uri = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        assert_eq!(uri, "odd%20n%C3%A4me,%20100%25%3A2.Dockerfile");
    }
    world.file("Dockerfile", DOUBTFUL);
    let log = parsed(world.seatrial(["build", "--check", "--format=sarif"]).run().exits(1).stdout());
    check(&log);
    let results = log["runs"][0]["results"].as_array().unwrap();
    let result = results.iter().find(|result| result["ruleId"] == "ST201").unwrap();
    assert_eq!(result["level"], "warning");
    let region = json!({"startLine": 1, "startColumn": 17, "endLine": 1, "endColumn": 21});
    assert_eq!(result["locations"][0]["physicalLocation"]["region"], region);
    let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
    let rule = &log["runs"][0]["tool"]["driver"]["rules"][index];
    assert_eq!((rule["id"].as_str(), rule["name"].as_str()), (Some("ST201"), Some("StageNameCasing")));
}

#[test]
fn github_shows_findings_at_their_lines() {
    let world = world();
    world.file(
        "Dockerfile",
        "# check=skip=RootUser,MissingHealthcheck\nFROM scratch as x\nCOPY --from=x%0A::error::y / /\n",
    );
    world.seatrial(["check", "--format=github"]).run().exits(0).stdout_is(&expect![[r#"
        ::warning file=Dockerfile,line=2,endLine=2,col=14,endColumn=16,title=ST202 FromAsCasing::'as' and 'FROM' keywords' casing do not match
    "#]]);
}

#[test]
fn a_build_ends_with_its_warnings() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM scratch AS Unused\nCMD x\nFROM tiny:1 AS Base\nENV A b\nCMD x\n");
    let finished = world.seatrial(["build", "--progress=plain"]).run().exits(0);
    let stderr = finished.stderr();
    let (_, warnings) = stderr.split_once("4 warnings found").unwrap_or_else(|| panic!("{stderr}"));
    expect![[r#"
        (repeat with `--check` to expand):
           - StageNameCasing: stage name 'Unused' should be lowercase (line 1)
           - StageNameCasing: stage name 'Base' should be lowercase (line 3)
           - LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 4)
           - JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 5)
    "#]]
    .assert_eq(warnings.trim_start());
    // Who asks for silence gets it.
    let quiet = world.seatrial(["build", "-q"]).run().exits(0);
    assert!(!quiet.stderr().contains("warning"), "{}", quiet.stderr());
    let check = "BUILDKIT_DOCKERFILE_CHECK=skip=all";
    let skipped = world.seatrial(["build", "--progress=plain", "--build-arg", check]).run().exits(0);
    assert!(!skipped.stderr().contains("warning"), "{}", skipped.stderr());
    // `error=true` stops it before the first step.
    let check = "BUILDKIT_DOCKERFILE_CHECK=error=true";
    let stopped = world.seatrial(["build", "--progress=plain", "--build-arg", check]).run().exits(2);
    stopped.stderr_has("error[ST207]: JSON arguments recommended for CMD").stderr_has("without `error=true`");
}

#[test]
fn base_images_of_the_store_are_known() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nENV X=$LANG\n");
    world.seatrial(["check"]).run().exits(0).stdout_has("usage of undefined variable '$LANG'");
    world.file("Dockerfile", "FROM --platform=linux/s390x tiny:1 AS s390x\n");
    world.seatrial(["check"]).run().exits(0).stdout_has("(InvalidBaseImagePlatform)");
    // One that is not here could set anything.
    world.file("Dockerfile", "FROM localhost/other:1\nENV X=$LANG\n");
    let finished = world.seatrial(["check"]).run().exits(0);
    assert!(!finished.stdout().contains("UndefinedVar"), "{}", finished.stdout());
}

#[test]
fn limits_of_the_pipeline_count() {
    let world = world();
    world.file("Dockerfile", "FROM scratch\nCOPY a /\nCOPY b /\nWORKDIR /x\n");
    world.file("seatrial.yaml", "image: localhost/x\nlimits: {layers: 2}\n");
    world.seatrial(["check"]).run().exits(0).stdout_has("3 layers without those of the base, at most 2 are allowed");
}

#[test]
fn the_context_is_looked_at() {
    let world = world();
    world.file("Dockerfile", "FROM scratch\nCOPY . /\nCOPY notes /\n");
    world.file(".dockerignore", "notes\n").file(".env", "A=b\n").file("node_modules/x", "").file("notes", "");
    let finished = world.seatrial(["check"]).run().exits(0);
    for rule in ["(SecretFileInContext)", "(BallastInContext)", "(CopyIgnoredFile)"] {
        assert!(finished.stdout().contains(rule), "{rule} is missing in\n{}", finished.stdout());
    }
    world.file(".dockerignore", "notes\nnode_modules\n.env\n").file("Dockerfile", "FROM scratch\nCOPY . /\n");
    let finished = world.seatrial(["check"]).run().exits(0);
    assert!(!finished.stdout().contains("InContext"), "{}", finished.stdout());
}

#[test]
fn targets_are_listed() {
    let world = world();
    world.file(
        "Dockerfile",
        "ARG V=1\n# one is the first\nFROM scratch AS one\nFROM one\nFROM scratch AS two\nCOPY --from=one / /\n",
    );
    world.seatrial(["build", "--call=targets"]).run().exits(0).stdout_is(&expect![[r#"
        TARGET          DESCRIPTION
        one             is the first
        1
        two (default)
    "#]]);
    let found = parsed(world.seatrial(["build", "--call=targets,format=json"]).run().exits(0).stdout());
    let at = |line: u32| json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
    assert_eq!(
        found["targets"],
        json!([
            {"name": "one", "description": "is the first", "base": "scratch", "location": at(3)},
            {"base": "one", "location": at(4)},
            {"name": "two", "default": true, "base": "scratch", "location": at(5)},
        ])
    );
}

#[test]
fn the_outline_of_a_target() {
    let world = world();
    world.file(
        "Dockerfile",
        "# V of the base\nARG V=1\nFROM scratch$V AS one\nARG W\nRUN --mount=type=ssh x\n# two does it\nFROM scratch AS two\n\
         COPY --from=one / /\nRUN --mount=type=secret,id=key,required x\n",
    );
    world.seatrial(["build", "--call=outline", "--build-arg", "W=2"]).run().exits(0).stdout_is(&expect![[r#"
        TARGET:      two
        DESCRIPTION: does it

        BUILD ARG   VALUE   DESCRIPTION
        V           1       of the base
        W           2

        SECRET   REQUIRED
        key      true

        SSH       REQUIRED
        default
    "#]]);
    let json = world.seatrial(["build", "--call=outline", "--format=json", "--target=one"]).run().exits(0);
    let found = parsed(json.stdout());
    let at = |line: u32| json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
    assert_eq!(found["name"], "one");
    assert_eq!(
        found["args"],
        json!([
            {"name": "V", "description": "of the base", "value": "1", "location": at(2)},
            {"name": "W", "location": at(4)},
        ])
    );
    assert_eq!(found["ssh"], json!([{"name": "default", "location": at(5)}]));
    assert_eq!(found.get("secrets"), None);
    world.seatrial(["build", "--call=outline", "--target=tow"]).run().exits(2).stderr_has("did you mean `two`?");
    world.seatrial(["build", "--call=outline,format=xml"]).run().exits(2).stderr_has("has no format `xml`");
    world.seatrial(["build", "--call=nonsense"]).run().exits(2).stderr_has("use check, outline or targets");
}
