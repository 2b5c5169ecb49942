//! Files to one tree: templates filled in, `extends` followed, several files merged, `include` copied in.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use dockerfile::{Diagnostic, Span};

use crate::{
    At, codes, dotenv,
    dotenv::Format,
    files::{self, ReadError},
    merge::{Merger, settle},
    parse::{is_within, normalize},
    read::{Keys, Reader, shorten},
    source::{SourceText, Sources},
    template::{TemplateError, Variables, interpolate},
    yaml::{self, Entry, Kind, Node, ParseOptions},
};

/// Each is read, also when several include it; more are a mistake or malice.
const FILES_MAX: usize = 100;
/// Nobody nests deeper by hand.
const INCLUDE_DEPTH_MAX: usize = 16;
/// Nobody extends what extends what … further by hand; each step may lengthen lists.
const EXTENDS_DEPTH_MAX: usize = 32;
/// What templates may become in all: a small file could name a large variable ten thousand times.
const FILLED_BYTES_MAX: usize = 16 << 20;

pub(crate) const INCLUDE: Keys = Keys {
    what: "an entry of `include`",
    known: &["path", "project_directory", "env_file"],
    later: &[],
    foreign: &[("file", "path"), ("files", "path"), ("directory", "project_directory")],
};
pub(crate) const EXTENDS: Keys = Keys {
    what: "`extends`",
    known: &["service", "file"],
    later: &[],
    foreign: &[("name", "service"), ("path", "file")],
};

/// What fills in the templates of a file.
#[derive(Clone)]
pub(crate) enum Filling {
    /// Compose's rules: environment and `.env`; what is not set is empty, with a warning.
    Compose(Rc<ComposeEnv>),
    /// The pipeline file's: commands are no templates, what is not set is an error.
    Own(Rc<dyn Variables>),
}

impl Filling {
    pub(crate) fn variables(&self) -> Rc<dyn Variables> {
        match self {
            Filling::Compose(env) => Rc::clone(env) as Rc<dyn Variables>,
            Filling::Own(variables) => Rc::clone(variables),
        }
    }
}

/// Variables by Compose's rules.
#[derive(Default)]
pub(crate) struct ComposeEnv {
    pub(crate) values: RefCell<BTreeMap<String, String>>,
    /// Names that were asked for and are not set.
    unset: RefCell<Vec<String>>,
}

impl ComposeEnv {
    pub(crate) fn new(values: BTreeMap<String, String>) -> Rc<ComposeEnv> {
        Rc::new(ComposeEnv { values: RefCell::new(values), unset: RefCell::default() })
    }
}

impl Variables for ComposeEnv {
    fn look_up(&self, name: &str) -> Result<String, TemplateError> {
        if name.contains('.') {
            return Err(TemplateError::Syntax(format!("`{}` is not the name of a variable", shorten(name))));
        }
        let absent = || TemplateError::Absent { name: name.into(), reason: format!("`{name}` is not set") };
        self.values.borrow().get(name).cloned().ok_or_else(absent)
    }

    fn absent(&self, error: TemplateError) -> Result<String, TemplateError> {
        if let TemplateError::Absent { name, .. } = error {
            self.unset.borrow_mut().push(name);
        }
        Ok(String::new())
    }
}

/// Reads files into trees.
#[derive(Default)]
pub(crate) struct Loader {
    pub(crate) sources: Sources,
    pub(crate) reader: Reader,
    /// Files outside of it are refused.
    pub(crate) confine: Option<PathBuf>,
    /// Names of files are shown relative to it.
    pub(crate) working_directory: PathBuf,
    filled_bytes: usize,
    too_many_files: bool,
    /// Files that services were extended from, by path and by the variables they were filled in with.
    extended: HashMap<(PathBuf, usize), Option<Arc<Node>>>,
}

impl Loader {
    pub(crate) fn new(working_directory: PathBuf, confine: Option<PathBuf>) -> Loader {
        Loader { working_directory, confine, ..Loader::default() }
    }

    /// The tree of a file whose templates are not filled in yet.
    pub(crate) fn parse(
        &mut self,
        path: &Path,
        base: &Path,
        filling: &Filling,
    ) -> Result<Option<Arc<Node>>, ReadError> {
        let text = files::read(path)?;
        let name = path.strip_prefix(&self.working_directory).unwrap_or(path).display().to_string();
        let file = Arc::new(SourceText { name, path: path.to_path_buf(), text });
        let start = self.sources.add(Arc::clone(&file), base, filling.variables());
        let options = ParseOptions { start, merge_tags: true };
        Ok(yaml::parse(&file.text, options, &mut self.reader.diagnostics))
    }

    /// A file that another one names at `span`.
    fn parse_named(&mut self, path: &Path, base: &Path, filling: &Filling, span: &Span) -> Option<Arc<Node>> {
        if self.sources.len() >= FILES_MAX {
            // Once: files that include each other twice would say so thousands of times.
            if !std::mem::replace(&mut self.too_many_files, true) {
                self.reader.error(codes::TOO_LARGE, format!("more than {FILES_MAX} files"), span);
            }
            return None;
        }
        match self.parse(path, base, filling) {
            Ok(tree) => tree,
            Err(error) => {
                let code = if matches!(error, ReadError::Missing) { codes::NO_SUCH_PATH } else { codes::INVALID_VALUE };
                let shown = path.strip_prefix(&self.working_directory).unwrap_or(path);
                self.reader.error(code, format!("`{}` {error}", shown.display()), span);
                None
            }
        }
    }

    /// The tree with its templates filled in and its services extended; merge tags stay.
    pub(crate) fn layer(&mut self, tree: &Arc<Node>, filling: &Filling) -> Arc<Node> {
        let filled = self.fill(tree, filling, &mut Vec::new());
        self.extend_services(&filled, filling)
    }

    /// One tree of several files, with what they include.
    pub(crate) fn model(
        &mut self,
        layers: Vec<Arc<Node>>,
        filling: &Filling,
        trail: &mut Vec<PathBuf>,
    ) -> Option<Arc<Node>> {
        let merged = layers.into_iter().reduce(|base, over| self.merge(&base, &over, false, &mut Vec::new()))?;
        let merged = settle(&merged);
        Some(self.include(&merged, filling, trail))
    }

    pub(crate) fn merge(
        &mut self,
        base: &Arc<Node>,
        over: &Arc<Node>,
        keep_tags: bool,
        path: &mut Vec<String>,
    ) -> Arc<Node> {
        let diagnostics = &mut self.reader.diagnostics;
        Merger { sources: &self.sources, keep_tags, diagnostics }.merge(base, over, path)
    }

    fn fill(&mut self, node: &Arc<Node>, filling: &Filling, path: &mut Vec<String>) -> Arc<Node> {
        let kind = match &node.kind {
            Kind::Scalar { text, plain } if text.contains('$') => {
                Kind::Scalar { text: self.fill_text(text, &node.span, filling), plain: *plain }
            }
            Kind::List(items) => {
                path.push("*".into());
                let items = items.iter().map(|item| self.fill(item, filling, path)).collect();
                path.pop();
                Kind::List(items)
            }
            Kind::Map(entries) => {
                let mut filled = Vec::with_capacity(entries.len());
                for entry in entries {
                    path.push(entry.key.clone());
                    let as_it_is =
                        entry.key.starts_with("x-") || (matches!(filling, Filling::Own(_)) && is_command(path));
                    let value =
                        if as_it_is { Arc::clone(&entry.value) } else { self.fill(&entry.value, filling, path) };
                    path.pop();
                    filled.push(Entry { value, ..entry.clone() });
                }
                Kind::Map(filled)
            }
            _ => return Arc::clone(node),
        };
        Arc::new(Node::new(kind, node.span.clone()).with_tag(node.tag))
    }

    fn fill_text(&mut self, text: &str, span: &Span, filling: &Filling) -> String {
        let filled = interpolate(text, &*filling.variables());
        if let Filling::Compose(env) = filling {
            for name in env.unset.take() {
                let message = format!("`{name}` is not set: nothing stands for it");
                let help = format!("give a default: `${{{name}:-…}}`");
                self.reader
                    .diagnostics
                    .push(Diagnostic::warning(codes::ABSENT_VALUE, message).with_span(span.clone()).with_help(help));
            }
        }
        match filled {
            Ok(filled) => {
                self.filled_bytes += filled.len();
                if self.filled_bytes > FILLED_BYTES_MAX {
                    let message = format!("variables make more than {FILLED_BYTES_MAX} bytes of the files");
                    self.reader.error(codes::TOO_LARGE, message, span);
                    return String::new();
                }
                filled
            }
            Err(TemplateError::Absent { name, reason }) => {
                let help = match filling {
                    // The file's author asks for it (`:?`), so a default is not the way.
                    Filling::Compose(_) => format!("set `{name}` in the environment or in `.env`"),
                    _ => format!("give a default: `${{{name}:-…}}`"),
                };
                self.reader.error(codes::ABSENT_VALUE, format!("`${{{name}}}` has no value: {reason}"), span).help =
                    Some(help);
                String::new()
            }
            Err(error @ TemplateError::Unknown { nearest, .. }) => {
                self.reader.error(codes::BAD_TEMPLATE, error.to_string(), span).label =
                    nearest.map(|nearest| format!("did you mean `${{{nearest}}}`?"));
                String::new()
            }
            Err(error) => {
                self.reader.error(codes::BAD_TEMPLATE, error.to_string(), span);
                String::new()
            }
        }
    }

    fn extend_services(&mut self, tree: &Arc<Node>, filling: &Filling) -> Arc<Node> {
        let Some(services) = tree.get("services").cloned() else { return Arc::clone(tree) };
        let Kind::Map(entries) = &services.kind else { return Arc::clone(tree) };
        if !entries.iter().any(|entry| entry.value.get("extends").is_some()) {
            return Arc::clone(tree);
        }
        let mut extended = Vec::with_capacity(entries.len());
        for entry in entries {
            let value = self.extend(&entry.key, &entry.value, &services, filling, &mut Vec::new());
            extended.push(Entry { value, ..entry.clone() });
        }
        let services = Arc::new(Node::new(Kind::Map(extended), services.span.clone()).with_tag(services.tag));
        replace(tree, "services", services)
    }

    /// The service over the one that it extends. `trail`: where services stand that led here.
    fn extend(
        &mut self,
        name: &str,
        node: &Arc<Node>,
        services: &Arc<Node>,
        filling: &Filling,
        trail: &mut Vec<Span>,
    ) -> Arc<Node> {
        let Some(extends) = node.get("extends").cloned() else { return Arc::clone(node) };
        let service = without(node, "extends");
        if trail.contains(&node.span) || trail.len() >= EXTENDS_DEPTH_MAX {
            let message = match trail.contains(&node.span) {
                true => format!("service `{}` extends itself", shorten(name)),
                false => format!("more than {EXTENDS_DEPTH_MAX} services extend each other"),
            };
            self.reader.error(codes::CYCLE, message, &extends.span);
            return service;
        }
        let Some((base_name, file)) = self.read_extends(&extends) else { return service };
        let services = match file {
            None => Arc::clone(services),
            Some(file) => match self.extended_file(&file, filling) {
                Some(services) => services,
                None => return service,
            },
        };
        let Some(base) = services.get(&base_name.value).cloned() else {
            let names = names(&services);
            let near = dockerfile::nearest(&base_name.value, names.iter().map(String::as_str)).map(str::to_owned);
            let message = format!("service `{}` does not exist", shorten(&base_name.value));
            self.reader.error(codes::UNKNOWN_SERVICE, message, &base_name.span).label =
                near.map(|near| format!("did you mean `{near}`?"));
            return service;
        };
        trail.push(node.span.clone());
        let base = self.extend(&base_name.value, &base, &services, filling, trail);
        trail.pop();
        self.merge(&settle(&base), &service, true, &mut vec!["services".into(), name.into()])
    }

    fn read_extends(&mut self, node: &Node) -> Option<(At<String>, Option<At<String>>)> {
        if matches!(node.kind, Kind::Scalar { .. }) {
            return Some((self.reader.text(node)?, None));
        }
        let fields = self.reader.fields(node, &EXTENDS, "the name of a service, or a map with `service`")?;
        let file = fields.get("file").and_then(|node| self.reader.text(node));
        match fields.get("service") {
            Some(service) => Some((self.reader.text(service)?, file)),
            None => {
                self.reader.error(codes::MISSING_KEY, "`extends` needs `service`", &node.span);
                None
            }
        }
    }

    /// The services of another file; relative paths in it start at its own directory.
    fn extended_file(&mut self, file: &At<String>, filling: &Filling) -> Option<Arc<Node>> {
        let path = self.resolve(&file.value, &file.span)?;
        let variables = Rc::as_ptr(&filling.variables()).cast::<()>() as usize;
        let key = (path.clone(), variables);
        if let Some(services) = self.extended.get(&key) {
            return services.clone();
        }
        let base = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let tree = self.parse_named(&path, &base, filling, &file.span);
        let services =
            tree.as_ref().and_then(|tree| self.fill(tree, filling, &mut Vec::new()).get("services").cloned());
        if tree.is_some() && services.is_none() {
            let message = format!("`{}` has no services", shorten(&file.value));
            self.reader.error(codes::UNKNOWN_SERVICE, message, &file.span);
        }
        // A file that could not be read is asked for again: nothing would hold the variables that the key speaks of.
        if tree.is_some() {
            self.extended.insert(key, services.clone());
        }
        services
    }

    /// A path as a file names it, absolute.
    pub(crate) fn resolve(&mut self, text: &str, span: &Span) -> Option<PathBuf> {
        let path = normalize(&self.sources.of(span).base.join(text));
        match &self.confine {
            Some(root) if !is_within(&path, root) => {
                let message = format!("`{}` is outside of the repository", shorten(text));
                self.reader.error(codes::LEAVES_REPOSITORY, message, span);
                None
            }
            _ => Some(path),
        }
    }

    /// The tree with what its `include` names.
    pub(crate) fn include(&mut self, tree: &Arc<Node>, filling: &Filling, trail: &mut Vec<PathBuf>) -> Arc<Node> {
        let Some(include) = tree.get("include").cloned() else { return Arc::clone(tree) };
        let items = match (&include.kind, filling) {
            (Kind::List(items), _) => items.clone(),
            // One file does not need a list in the pipeline file.
            (Kind::Scalar { .. } | Kind::Map(_), Filling::Own(_)) => vec![Arc::clone(&include)],
            (Kind::Null, _) => Vec::new(),
            _ => {
                self.reader.wrong_type(&include, "a list of files");
                Vec::new()
            }
        };
        let mut tree = without(tree, "include");
        for item in &items {
            if let Some(included) = self.included(item, filling, trail) {
                tree = self.import(&tree, &included, matches!(filling, Filling::Own(_)));
            }
        }
        tree
    }

    fn included(&mut self, item: &Arc<Node>, filling: &Filling, trail: &mut Vec<PathBuf>) -> Option<Arc<Node>> {
        let (paths, directory, env_files) = match item.kind {
            Kind::Map(_) => {
                let fields = self.reader.fields(item, &INCLUDE, "a file, or a map with `path`")?;
                let texts =
                    |reader: &mut Reader, key| fields.get(key).map(|node| reader.texts(node)).unwrap_or_default();
                let paths = texts(&mut self.reader, "path");
                let env_files = texts(&mut self.reader, "env_file");
                (paths, fields.get("project_directory").and_then(|node| self.reader.text(node)), env_files)
            }
            _ => (vec![self.reader.text(item)?], None, Vec::new()),
        };
        let Some(first) = paths.first() else {
            self.reader.error(codes::MISSING_KEY, "an entry of `include` needs `path`", &item.span);
            return None;
        };
        let main = self.resolve(&first.value, &first.span)?;
        if trail.contains(&main) || trail.len() >= INCLUDE_DEPTH_MAX {
            let message = match trail.contains(&main) {
                true => format!("`{}` includes itself", shorten(&first.value)),
                false => format!("more than {INCLUDE_DEPTH_MAX} files include each other"),
            };
            self.reader.error(codes::CYCLE, message, &first.span);
            return None;
        }
        let directory = match directory {
            Some(directory) => self.resolve(&directory.value, &directory.span)?,
            None => main.parent().unwrap_or(Path::new("/")).to_path_buf(),
        };
        let filling = Filling::Compose(self.included_env(filling, &directory, &env_files)?);
        let mut layers = Vec::new();
        for path in &paths {
            let file = self.resolve(&path.value, &path.span)?;
            let tree = self.parse_named(&file, &directory, &filling, &path.span)?;
            layers.push(self.layer(&tree, &filling));
        }
        trail.push(main);
        let model = self.model(layers, &filling, trail);
        trail.pop();
        model
    }

    /// The including file's variables over those of the `.env` file beside the included one.
    fn included_env(
        &mut self,
        filling: &Filling,
        directory: &Path,
        env_files: &[At<String>],
    ) -> Option<Rc<ComposeEnv>> {
        let mut values = match filling {
            Filling::Compose(env) => env.values.borrow().clone(),
            Filling::Own(variables) => variables.environment(),
        };
        let mut files = Vec::new();
        for file in env_files {
            files.push((self.resolve(&file.value, &file.span)?, file.span.clone()));
        }
        if env_files.is_empty() && directory.join(".env").is_file() {
            files.push((directory.join(".env"), Span::default()));
        }
        let outer = values.clone();
        for (file, span) in files {
            let env = ComposeEnv::new(values.clone());
            match read_env_file(&file, &*env) {
                Ok(lines) => values.extend(lines),
                Err(message) => {
                    self.reader.error(codes::INVALID_VALUE, message, &span);
                }
            }
        }
        values.extend(outer);
        Some(ComposeEnv::new(values))
    }

    /// Copies what an included model defines; nothing may be defined twice, except that the pipeline file says more of an
    /// included service.
    fn import(&mut self, tree: &Arc<Node>, included: &Arc<Node>, may_merge: bool) -> Arc<Node> {
        let mut tree = Arc::clone(tree);
        for section in ["services", "networks", "volumes", "configs", "secrets"] {
            let Some(Kind::Map(theirs)) = included.get(section).map(|node| node.kind.clone()) else { continue };
            let own = tree.get(section).cloned();
            let ours = match own.as_ref().map(|node| &node.kind) {
                Some(Kind::Map(ours)) => ours.clone(),
                _ => Vec::new(),
            };
            let mut entries = theirs;
            for entry in ours {
                let Some(at) = entries.iter().position(|their| their.key == entry.key) else {
                    entries.push(entry);
                    continue;
                };
                let their = &entries[at];
                if may_merge {
                    let mut path = vec![section.to_owned(), entry.key.clone()];
                    let base = Arc::clone(&their.value);
                    let value = settle(&self.merge(&base, &entry.value, false, &mut path));
                    entries[at] = Entry { value, ..entry };
                } else if !their.value.equals(&entry.value) {
                    let message = format!("`{}` is defined by an included file, too", shorten(&entry.key));
                    let note = format!("the other definition stands in {}", self.sources.describe(&their.key_span));
                    self.reader.error(codes::TWO_DEFINITIONS, message, &entry.key_span).notes.push(note);
                }
            }
            let span = own.map_or(included.span.clone(), |own| own.span.clone());
            tree = replace(&tree, section, Arc::new(Node::new(Kind::Map(entries), span)));
        }
        tree
    }
}

/// Command text is no template in the pipeline file: a branch's name could inject a command.
fn is_command(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        path.as_slice(),
        ["services", _, "command" | "entrypoint"]
            | ["services", _, "healthcheck", "test"]
            | ["services", _, "ready", "command"]
            | ["services", _, "pre_start", "*", "command"]
            | ["services", _, "develop", "watch", "*", "exec", "command"]
    )
}

/// The variables of a `.env` file, in words of its own when it is wrong.
pub(crate) fn read_env_file(path: &Path, outside: &dyn Variables) -> Result<BTreeMap<String, String>, String> {
    let text = files::read(path).map_err(|error| format!("`{}` {error}", path.display()))?;
    let lines =
        dotenv::parse(&text, Format::Compose, outside).map_err(|error| format!("`{}`, {error}", path.display()))?;
    let value = |(name, value): (String, Option<String>)| {
        let value = value.or_else(|| outside.look_up(&name).ok())?;
        Some((name, value))
    };
    Ok(lines.into_iter().filter_map(value).collect())
}

fn names(node: &Node) -> Vec<String> {
    match &node.kind {
        Kind::Map(entries) => entries.iter().map(|entry| entry.key.clone()).collect(),
        _ => Vec::new(),
    }
}

fn without(node: &Arc<Node>, key: &str) -> Arc<Node> {
    let Kind::Map(entries) = &node.kind else { return Arc::clone(node) };
    let entries = entries.iter().filter(|entry| entry.key != key).cloned().collect();
    Arc::new(Node::new(Kind::Map(entries), node.span.clone()).with_tag(node.tag))
}

fn replace(node: &Arc<Node>, key: &str, value: Arc<Node>) -> Arc<Node> {
    let Kind::Map(entries) = &node.kind else { return Arc::clone(node) };
    let mut entries = entries.clone();
    match entries.iter_mut().find(|entry| entry.key == key) {
        Some(entry) => entry.value = value,
        None => entries.push(Entry { key: key.into(), key_span: value.span.clone(), value }),
    }
    Arc::new(Node::new(Kind::Map(entries), node.span.clone()).with_tag(node.tag))
}
