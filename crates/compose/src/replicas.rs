//! Containers of services that have several (`scale`, `deploy.replicas`): each as a service of its own.

use std::collections::BTreeMap;

use crate::{Attachment, Dependency, Link, Project, Service};

/// The key of the network of services that name none.
const DEFAULT_NETWORK: &str = "default";

/// A project in which every service is one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replicated {
    /// `web` with two replicas is `web-1` and `web-2` here; both are reached as `web`, which has an address for each.
    pub project: Project,
    /// Containers of the services that have not exactly one.
    several: BTreeMap<String, Vec<String>>,
}

impl Replicated {
    /// The containers of these services, in their order.
    pub fn names(&self, services: &[String]) -> Vec<String> {
        services.iter().flat_map(|service| self.of(service)).collect()
    }

    /// The container that a link to a service leads to: its first one.
    pub fn first(&self, service: &str) -> String {
        self.of(service).into_iter().next().unwrap_or_else(|| service.to_owned())
    }

    fn of(&self, service: &str) -> Vec<String> {
        self.several.get(service).cloned().unwrap_or_else(|| vec![service.to_owned()])
    }
}

impl Project {
    /// Every service as often as it is to run.
    pub fn replicated(&self) -> Replicated {
        let is_taken = |name: &str| self.service(name).is_some();
        let mut several = BTreeMap::new();
        for service in self.services.iter().filter(|service| service.replicas.is_some_and(|count| count != 1)) {
            let names = (1..=service.replicas.unwrap_or(1)).map(|number| {
                let name = format!("{}-{number}", service.name);
                if is_taken(&name) { format!("{}-replica-{number}", service.name) } else { name }
            });
            several.insert(service.name.clone(), names.collect());
        }
        let mut replicated = Replicated { project: Project::default(), several };
        let services = self.services.iter().flat_map(|service| replicated.replicas(service)).collect();
        replicated.project = Project { services, ..self.clone() };
        replicated
    }
}

impl Replicated {
    fn replicas(&self, service: &Service) -> Vec<Service> {
        let dependencies = service.depends_on.iter().flat_map(|dependency| {
            let each = |service| Dependency { service, ..dependency.clone() };
            self.of(&dependency.service).into_iter().map(each)
        });
        let links = service.links.iter().map(|link| Link { service: self.first(&link.service), ..link.clone() });
        let service = Service { depends_on: dependencies.collect(), links: links.collect(), ..service.clone() };
        let Some(names) = self.several.get(&service.name) else { return vec![service] };
        let mut networks = service.networks.clone();
        if networks.is_empty() && service.network_mode.is_none() {
            networks.push(Attachment { network: DEFAULT_NETWORK.to_owned(), ..Attachment::default() });
        }
        networks.iter_mut().for_each(|network| network.aliases.push(service.name.clone()));
        let one = |name: &String| Service {
            name: name.clone(),
            networks: networks.clone(),
            replicas: None,
            ..service.clone()
        };
        names.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, replicas: Option<u32>) -> Service {
        Service { name: name.to_owned(), replicas, ..Service::default() }
    }

    #[test]
    fn several_containers_of_a_service_share_its_name() {
        let needs = |names: &[&str]| {
            names
                .iter()
                .map(|name| Dependency {
                    service: (*name).to_owned(),
                    place: None,
                    condition: crate::Condition::ServiceHealthy,
                    required: true,
                    restart: false,
                })
                .collect::<Vec<_>>()
        };
        let proxy = Service { depends_on: needs(&["web", "off", "db"]), ..service("proxy", None) };
        let services = vec![
            service("web", Some(2)),
            service("off", Some(0)),
            service("db", Some(1)),
            proxy,
            service("web-2", None),
        ];
        let replicated = Project { services, ..Project::default() }.replicated();
        let names: Vec<&str> = replicated.project.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["web-1", "web-replica-2", "db", "proxy", "web-2"]);
        assert_eq!(replicated.names(&["web".into(), "db".into()]), ["web-1", "web-replica-2", "db"]);
        assert_eq!(replicated.project.services[1].aliases_in("default"), ["web"]);
        assert_eq!(replicated.project.service("db").map(|db| db.networks.len()), Some(0));
        let proxy = replicated.project.service("proxy").unwrap();
        let needed: Vec<&str> = proxy.depends_on.iter().map(|dependency| dependency.service.as_str()).collect();
        assert_eq!(needed, ["web-1", "web-replica-2", "db"]);
    }
}
