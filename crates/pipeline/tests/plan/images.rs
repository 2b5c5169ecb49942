//! Several images: their names, defaults, order, and what is refused.

use pipeline::{Plan, Version};

use super::Project;

fn project(yaml: &str) -> Project {
    let project = Project::new(&[
        ("seatrial.yaml", yaml),
        ("Dockerfile", "FROM scratch\n"),
        ("Dockerfile.base", "FROM scratch\n"),
        ("api/Dockerfile", "FROM scratch\n"),
        ("api/package.json", r#"{"version": "1.4.2"}"#),
        ("web/Dockerfile", "FROM scratch\n"),
        (
            "compose.yaml",
            "services:\n  db: {image: postgres}\n  api: {build: {context: api, args: {A: 2}}, depends_on: [db]}\n",
        ),
    ]);
    project.commit();
    project
}

fn image<'p>(plan: &'p Plan, name: &str) -> &'p Plan {
    plan.images.iter().find(|image| image.name == name).unwrap_or_else(|| panic!("{name}"))
}

fn tags(plan: &Plan) -> Vec<String> {
    plan.publish.iter().flat_map(|publish| &publish.tags).map(|rule| rule.tag.clone()).collect()
}

fn repositories(plan: &Plan) -> Vec<String> {
    plan.publish.iter().flat_map(|publish| &publish.repositories).map(ToString::to_string).collect()
}

#[test]
fn base_and_release_share_a_repository() {
    let plan = project(
        r#"
image: registry.example/myapp
images:
  base:
    build: {dockerfile: Dockerfile.base}
    version: {label: org.opencontainers.image.version}
    publish: {when: {path: [Dockerfile.base]}, tags: ["base-${version}"]}
  app:
    build: {context: ., additional_contexts: {"registry.example/myapp:base": "image:base"}}
    limits: {layers: 100, above_base: 30MB}
    version: {git: describe}
    publish: {tags: ["${version}"]}
"#,
    )
    .plan(&[]);
    let (base, app) = (image(&plan, "base"), image(&plan, "app"));
    assert_eq!(app.build.additional_contexts["registry.example/myapp:base"], "image:base");
    assert_eq!((base.build.dockerfile.as_str(), app.build.dockerfile.as_str()), ("Dockerfile.base", "Dockerfile"));
    for (plan, own, local) in [(base, "base-${version}", "base-${git.short}"), (app, "${version}", "app-${git.short}")]
    {
        assert_eq!(repositories(plan), ["registry.example/myapp"]);
        assert_eq!(tags(plan), [own]);
        assert_eq!(plan.local_tags[0].tag, local);
    }
    assert_eq!(base.version, Version::ImageLabel("org.opencontainers.image.version".into()));
    assert_eq!((app.limits.layers, app.limits.above_base_bytes), (Some(100), Some(30_000_000)));
}

#[test]
fn a_solution_has_an_image_for_each_part() {
    let plan = project(
        r#"
include: compose.yaml
build: {labels: {part: of-people}, args: {A: "1"}}
images:
  api:
    build: {context: api, args: {A: "2"}}
    version: {file: api/package.json}
    test: {gates: {unit: make test, lint: {run: make lint, needs: unit}}}
  web: ./web
test:
  timeout: 5m
  gates:
    e2e: {in: "node:20", services: [web, api], run: npm test, matrix: {BROWSER: [a, b]}}
    migrations: {in: api, services: [db], run: migrate}
publish: {to: registry.example/people, tags: ["${git.branch}", "${version}"]}
"#,
    )
    .plan(&[]);
    let (api, web) = (image(&plan, "api"), image(&plan, "web"));
    assert_eq!(repositories(api), ["registry.example/people/api"]);
    assert_eq!(repositories(web), ["registry.example/people/web"]);
    assert_eq!(tags(web), ["${git.branch}", "${version}"]);
    assert_eq!(api.version, Version::Known("1.4.2".into()));
    assert_eq!((api.build.args["A"].as_str(), web.build.args["A"].as_str()), ("2", "1"));
    assert_eq!(api.build.labels["part"], "of-people");
    let names: Vec<&str> = api.test.gates.iter().map(|gate| gate.name.as_str()).collect();
    assert_eq!(names, ["api/unit", "api/lint"]);
    assert_eq!(api.test.gates[1].needs, ["api/unit"]);
    assert_eq!(api.test.gates[0].timeout, Some(std::time::Duration::from_secs(300)));
    assert_eq!(api.stage("build"), "api/build");
    let names: Vec<&str> = plan.test.gates.iter().map(|gate| gate.name.as_str()).collect();
    assert_eq!(names, ["e2e (a)", "e2e (b)", "migrations"]);
    let of_run = |at: usize| plan.test.gates[at].image.as_ref().and_then(|image| image.of_run.as_deref());
    assert_eq!((of_run(0), of_run(2)), (None, Some("api")));
    // The service `api` is built as the image is, and `web` is a service because a gate says so.
    for name in ["api", "web"] {
        let service = plan.services.project.service(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((service.from.as_deref(), service.build.is_none()), (Some(name), true));
    }
}

#[test]
fn what_cannot_be_is_refused_at_its_place() {
    for (yaml, expected) in [
        ("images: {}\n", "ST307 1:9 `images` names no image"),
        ("images: [api]\n", "ST305 1:9 expected a map from names to images, found a list"),
        ("images: {api: [x]}\n", "ST305 1:15 expected a directory, or a map with keys such as `build`, found a list"),
        (
            "images: {My: .}\n",
            "ST306 1:10 `My` is no name of an image: it has lower-case letters, digits, `-`, `_` and `.`, 64 at most",
        ),
        ("images: {api: {services: {}}}\n", "ST302 1:16 an image has no key `services`"),
        ("images: {api: ./ap}\n", "ST310 1:15 `./ap` does not exist (did you mean `./api`?)"),
        (
            "images: {api: ./api}\ntest: {gates: {unit: make}}\n",
            "ST307 2:16 gate `unit` has to say `in` which image it runs",
        ),
        (
            "images:\n  base: .\n  api: {build: {additional_contexts: {b: \"image:bse\"}}}\n",
            "ST320 3:42 no image `bse` is built here (did you mean `base`?)",
        ),
        (
            "images: {api: ./api}\ntest: {gates: {e2e: {in: \"image:ap\", run: x}}}\n",
            "ST320 2:26 no image `ap` is built here (did you mean `api`?)",
        ),
        (
            "images: {api: ./api}\nservices: {x: {image: \"image:ap\"}}\n",
            "ST320 2:23 no image `ap` is built here (did you mean `api`?)",
        ),
        (
            "images:\n  a: {build: {additional_contexts: {x: \"image:b\"}}}\n  b: {build: {additional_contexts: {x: \"image:c\"}}}\n  c: {build: {additional_contexts: {x: \"image:a\"}}}\n",
            "ST321 4:40 images wait for each other: a → b → c → a",
        ),
        (
            "images:\n  a: {build: {additional_contexts: {x: \"image:a\"}}}\n",
            "ST321 2:40 images wait for each other: a → a",
        ),
        // The gate of the base waits for an image that waits for the base.
        (
            "images:\n  base: {build: ., test: {gates: {g: {run: x, services: [app]}}}}\n  app: {build: {additional_contexts: {x: \"image:base\"}}}\n",
            "ST321 2:58 images wait for each other: app → base → app",
        ),
        (
            "image: registry.example/x\npublish: {tags: latest}\nimages: {api: ./api, web: ./web}\n",
            "ST322 3:22 `api` and `web` would both be registry.example/x:latest",
        ),
        (
            "publish: {tags: [a, \"1\"]}\nimages:\n  api: {image: registry.example/x}\n  web: {image: registry.example/x, publish: {tags: [\"${git.branch}\", \"1\"]}}\n",
            "ST322 4:53 `api` and `web` would both be registry.example/x:1",
        ),
        // A mistake of the top level is told once.
        (
            "build: {args: {A: \"${NO}\"}}\nimages: {api: ./api, web: ./web}\n",
            "ST313 1:19 `${NO}` has no value: `NO` is not set",
        ),
    ] {
        assert_eq!(project(yaml).refused(), expected, "{yaml}");
    }
    // Without `images` there is no other image.
    let refused = project("build: {additional_contexts: {b: \"image:base\"}}\n").refused();
    assert_eq!(refused, "ST320 1:34 no image `base` is built here");
}

#[test]
fn images_that_are_told_apart_are_taken() {
    for yaml in [
        "image: registry.example/x\nimages: {api: ./api, web: ./web}\n",
        "image: registry.example/x\npublish: {}\nimages: {api: ./api, web: ./web}\n",
        "image: registry.example/x\npublish: {tags: latest}\nimages: {api: ./api, web: {build: ./web, publish: false}}\n",
        "publish: {to: registry.example/y, tags: latest}\nimages: {api: ./api, web: ./web}\n",
        // One of them only on another branch.
        "image: registry.example/x\npublish: {tags: latest}\nimages: {api: ./api, web: {build: ./web, publish: {when: {branch: other}}}}\n",
    ] {
        let plan = project(yaml).plan(&[]);
        assert_eq!(plan.images.len(), 2, "{yaml}");
    }
}
