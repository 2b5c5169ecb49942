//! What has to be started for what, and in which order it is stopped.

use std::collections::{BTreeMap, BTreeSet};

use compose::{Condition, Service};

/// The services cannot be brought into an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unordered {
    /// A name that no service has.
    #[error("there is no service `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// One that is spelled alike.
        nearest: Option<String>,
    },
    /// Services that wait for each other.
    #[error("services wait for each other: {}", .0.join(" → "))]
    Cycle(Vec<String>),
}

/// The named services with all that they need, in an order in which each comes after its dependencies. A dependency that
/// is not required and does not exist is left out.
///
/// # Errors
/// A name is unknown, or services wait for each other.
pub fn needed<'s>(all: &'s [Service], names: &[String]) -> Result<Vec<&'s Service>, Unordered> {
    let by_name: BTreeMap<&str, &Service> = all.iter().map(|service| (service.name.as_str(), service)).collect();
    let mut order = Vec::new();
    let mut done = BTreeSet::new();
    for name in names {
        let service = by_name.get(name.as_str()).ok_or_else(|| Unordered::Unknown {
            name: name.clone(),
            nearest: dockerfile::nearest(name, by_name.keys().copied()).map(str::to_owned),
        })?;
        visit(service, &by_name, &mut done, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

/// Names of services that the named ones cannot do without, themselves included.
pub(crate) fn required<'s>(all: &'s [Service], names: &'s [String]) -> BTreeSet<&'s str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = names.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        if found.insert(name)
            && let Some(service) = all.iter().find(|service| service.name == name)
        {
            let needs = service.depends_on.iter().filter(|dependency| dependency.required);
            open.extend(needs.map(|dependency| dependency.service.as_str()));
        }
    }
    found
}

/// Depth-first; the number of services bounds the depth.
fn visit<'s>(
    service: &'s Service,
    by_name: &BTreeMap<&str, &'s Service>,
    done: &mut BTreeSet<&'s str>,
    path: &mut Vec<&'s str>,
    order: &mut Vec<&'s Service>,
) -> Result<(), Unordered> {
    if done.contains(service.name.as_str()) {
        return Ok(());
    }
    if let Some(from) = path.iter().position(|name| *name == service.name) {
        let names = path[from..].iter().copied().chain([service.name.as_str()]);
        return Err(Unordered::Cycle(names.map(str::to_owned).collect()));
    }
    path.push(&service.name);
    for dependency in &service.depends_on {
        match by_name.get(dependency.service.as_str()) {
            Some(other) => visit(other, by_name, done, path, order)?,
            None if !dependency.required => {}
            None => return Err(Unordered::Unknown { name: dependency.service.clone(), nearest: None }),
        }
    }
    path.pop();
    done.insert(&service.name);
    order.push(service);
    Ok(())
}

/// Groups of ordered services: each group needs only what is in those before it. Stopping goes through them backwards.
pub(crate) fn levels<'s>(order: &[&'s Service]) -> Vec<Vec<&'s Service>> {
    let mut level_of: BTreeMap<&str, usize> = BTreeMap::new();
    let mut levels: Vec<Vec<&Service>> = Vec::new();
    for service in order {
        let below = service.depends_on.iter().filter_map(|dependency| level_of.get(dependency.service.as_str()));
        let level = below.max().map_or(0, |level| level + 1);
        level_of.insert(&service.name, level);
        if levels.len() == level {
            levels.push(Vec::new());
        }
        levels[level].push(service);
    }
    levels
}

/// Whether another service waits for the end of this one.
pub(crate) fn is_one_shot(all: &[Service], name: &str) -> bool {
    let mut dependencies = all.iter().flat_map(|service| &service.depends_on);
    dependencies.any(|other| other.service == name && other.condition == Condition::ServiceCompletedSuccessfully)
}

#[cfg(test)]
mod tests {
    use compose::Dependency;

    use super::*;

    /// `app: db? cache` is a service that needs two others, the first not for good.
    fn services(text: &str) -> Vec<Service> {
        let service = |line: &str| {
            let (name, needs) = line.split_once(':').expect("a name");
            let depends_on = needs.split_whitespace().map(|need| Dependency {
                service: need.trim_end_matches('?').to_owned(),
                place: None,
                condition: Condition::ServiceStarted,
                required: !need.ends_with('?'),
                restart: false,
            });
            Service { name: name.trim().to_owned(), depends_on: depends_on.collect(), ..Service::default() }
        };
        text.lines().map(service).collect()
    }

    fn check(text: &str, names: &[&str], expected: &str) {
        let all = services(text);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = match needed(&all, &names) {
            Ok(order) => {
                let words = |level: Vec<&Service>| level.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" ");
                levels(&order).into_iter().map(words).collect::<Vec<_>>().join(" | ")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn only_what_is_needed_comes_and_after_its_dependencies() {
        let all = "web: api\napi: db cache\ndb:\ncache:\nmail:";
        check(all, &["web"], "db cache | api | web");
        check(all, &["cache", "db"], "cache db");
        check(all, &[], "");
        check("b: a\nc: a\nd: b c\na:", &["d"], "a | b c | d");
    }

    #[test]
    fn what_cannot_be_ordered_is_told() {
        check("a: b\nb: c\nc: a", &["b"], "services wait for each other: b → c → a → b");
        check("a: a", &["a"], "services wait for each other: a → a");
        check("a: gone", &["a"], "there is no service `gone`");
        check("a: gone?", &["a"], "a");
        check("database:", &["databse"], "there is no service `databse`");
    }
}
