//! Who may do what: logins, tokens, rules, limits, and the log of it all.
//!
//! A request's way: [`Visit`] says where it comes from and what it is about, [`Gate::admit`] finds out who asks and whether they
//! may, and the [`Caller`] that it gives answers further questions. [`issue`] gives tokens.

mod audit;
mod issue;
mod limits;
mod rules;
mod token;
mod users;
mod visit;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::http::{HeaderMap, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use audit::Audit;
use limits::Meter;
use token::{Grant, Signer, TokenError, Use};
use users::{User, Users};

use super::{ServerError, answer::Refusal, storage::RepositoryName};

pub use audit::AuditOptions;
pub(super) use issue::give_token;
pub use limits::{InvalidRate, Limits, Rate};
pub use rules::{AccessRule, Action};
pub use users::UsersError;
pub(super) use visit::Visit;

/// Where tokens are given.
pub(super) const TOKEN_PATH: &str = "/token";
/// The resource type and name that stand for the list of repositories (token specification, "Resource Types").
const CATALOG: (&str, &str, &str) = ("registry", "catalog", "*");

/// Who may use a server, and for what. `..AccessOptions::new(users)` fills in the rest.
#[derive(Clone, Debug)]
pub struct AccessOptions {
    /// Users with the bcrypt hashes of their passwords, as `htpasswd -B` writes them; read again when it changes.
    pub users: PathBuf,
    /// What is given to whom; nothing else is.
    pub rules: Vec<AccessRule>,
    /// What a client that shows nothing is asked for.
    pub challenge: ChallengeKind,
    /// The name of this registry in its tokens: one with the same key and another name does not take them.
    pub service: String,
    /// URL at which clients get tokens, where the one that they ask the registry at is not what they should use.
    pub realm: Option<String>,
    /// How long a token is good for. Clients believe in a minute at least.
    pub token_life: Duration,
    /// How long a client that keeps a refresh token instead of the password may go without a new login.
    pub refresh_life: Duration,
}

impl AccessOptions {
    /// Users of a file, who may do nothing yet.
    pub fn new(users: impl Into<PathBuf>) -> Self {
        Self {
            users: users.into(),
            rules: Vec::new(),
            challenge: ChallengeKind::Bearer,
            service: "seatrial-registry".into(),
            realm: None,
            token_life: Duration::from_secs(300),
            refresh_life: Duration::from_secs(90 * 24 * 3600),
        }
    }
}

/// What a client that shows nothing is asked for. Passwords are taken in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// A token of this server: what all clients of registries know, and the only one that lets them pull without a login.
    Bearer,
    /// User and password with each request.
    Basic,
}

/// Stands between requests and what they ask for.
#[derive(Debug)]
pub(super) struct Gate {
    access: Option<Arc<Access>>,
    meter: Meter,
    audit: Option<Audit>,
    proxies: Vec<IpAddr>,
}

#[derive(Debug)]
struct Access {
    users: Users,
    signer: Signer,
    options: AccessOptions,
    /// For clients that do not say which host they ask.
    address: SocketAddr,
}

/// What a request needs to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// To be logged in, by programs that know passwords only.
    Login,
    /// To be somebody: `/v2/` is where clients find out that they have to log in.
    Entry,
    /// The list of repositories, of which everybody sees what they may read.
    Catalog,
    Repository(RepositoryName, Action),
    /// To see this repository, or any, with a browser.
    Page(Option<RepositoryName>),
}

/// Who asks, as far as they have shown.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// `None`: everybody may do everything.
    access: Option<Arc<Access>>,
    user: Option<User>,
    shown: Shown,
}

#[derive(Clone, Debug)]
enum Shown {
    Nothing,
    Password,
    /// A token, which is good for this and no more.
    Token(Arc<[Grant]>),
}

impl Gate {
    /// Reads users and key. `address` is the one that is listened on.
    pub(super) fn open(
        options: &super::ServerOptions,
        directory: &Path,
        address: SocketAddr,
    ) -> Result<Self, ServerError> {
        let notices = &options.notices;
        let access = options.access.as_ref().map(|it| Access::open(it, options, directory, address)).transpose()?;
        let open_log = |audit: &AuditOptions| {
            let cannot = |source| ServerError::Audit { path: audit.path.clone(), source };
            Audit::open(audit.clone(), notices.clone()).map_err(cannot)
        };
        Ok(Self {
            access: access.map(Arc::new),
            meter: Meter::new(&options.limits),
            audit: options.audit.as_ref().map(open_log).transpose()?,
            proxies: options.trusted_proxies.clone(),
        })
    }

    /// Who asks, if they may, and not too often.
    pub(super) async fn admit(&self, visit: &mut Visit, headers: &HeaderMap, need: &Need) -> Result<Caller, Refusal> {
        self.meter.count_address(visit.address())?;
        let Some(access) = &self.access else {
            return Ok(Caller { access: None, user: None, shown: Shown::Nothing });
        };
        if *need == Need::Nothing {
            return Ok(Caller { access: Some(Arc::clone(access)), user: None, shown: Shown::Nothing });
        }
        let (user, shown) = match credentials(headers) {
            Presented::Nothing => (None, Shown::Nothing),
            Presented::Password(name, password) => {
                let user = self.log_in(access, visit, &name, &password).await?;
                let wrong = || access.unauthorized(visit, need, None, "wrong user name or password");
                (Some(user.ok_or_else(wrong)?), Shown::Password)
            }
            Presented::Token(token) => {
                let (user, grants) = access
                    .believe(&token, Use::Access)
                    .map_err(|error| access.unauthorized(visit, need, Some("invalid_token"), &error.to_string()))?;
                (user, Shown::Token(grants.into()))
            }
            Presented::Nonsense => {
                visit.shows_credentials();
                return Err(access.unauthorized(visit, need, None, "`Authorization` is not understood"));
            }
        };
        if !matches!(shown, Shown::Nothing) {
            visit.shows_credentials();
        }
        if let Some(user) = &user {
            visit.is_of(user);
            self.meter.count_user(&user.name)?;
        }
        let caller = Caller { access: Some(Arc::clone(access)), user, shown };
        caller.check(access, visit, need)?;
        Ok(caller)
    }

    /// The user, if the password is theirs. Wrong ones are counted, and too many of them end it.
    async fn log_in(
        &self,
        access: &Access,
        visit: &mut Visit,
        name: &str,
        password: &str,
    ) -> Result<Option<User>, Refusal> {
        visit.shows_credentials();
        let address = visit.address();
        // Also where the answer is known already: otherwise it would tell right passwords from wrong ones at any speed.
        self.meter.check_login(address, name)?;
        let user = access.users.verify(name, password, || self.meter.begin_login(address, name)).await??;
        if user.is_none() && access.users.has(name) {
            visit.claims_to_be(name);
        }
        Ok(user)
    }

    /// Begins the audit log's file anew.
    pub(super) async fn reopen(&self) {
        if let Some(audit) = &self.audit {
            audit.reopen().await;
        }
    }

    /// Returns when the audit log is written.
    pub(super) async fn flush(&self) {
        if let Some(audit) = &self.audit {
            audit.flush().await;
        }
    }
}

impl Access {
    fn open(
        access: &AccessOptions,
        options: &super::ServerOptions,
        directory: &Path,
        address: SocketAddr,
    ) -> Result<Self, ServerError> {
        if options.store.is_some() && !rules::is_all_or_nothing(&access.rules) {
            return Err(ServerError::StoreLeaks);
        }
        let users = Users::open(&access.users, options.notices.clone()).map_err(ServerError::Users)?;
        for name in rules::unknown_users(&access.rules, |name| users.has(name)) {
            options
                .notices
                .say(&format!("rules name the user `{name}`, whom {} does not have", access.users.display()));
        }
        let signer = Signer::open(directory, &access.service).map_err(ServerError::Storage)?;
        Ok(Self { users, signer, options: access.clone(), address })
    }

    fn allows(&self, user: Option<&User>, repository: &str, action: Action) -> bool {
        rules::allow(&self.options.rules, user.map(|user| &*user.name), repository, action)
    }

    /// What a token of ours says now: whose password has changed since, or who is gone, is not believed any more.
    fn believe(&self, token: &str, purpose: Use) -> Result<(Option<User>, Vec<Grant>), TokenError> {
        let claims = self.signer.verify(token, purpose, SystemTime::now())?;
        if claims.sub.is_empty() {
            return Ok((None, claims.access));
        }
        let user = self.users.get(&claims.sub).filter(|user| user.mark == claims.mark).ok_or(TokenError::Void)?;
        Ok((Some(user), claims.access))
    }

    /// The answer to those who have to show something else.
    fn unauthorized(&self, visit: &Visit, need: &Need, error: Option<&str>, message: &str) -> Refusal {
        let challenge = match self.options.challenge {
            ChallengeKind::Bearer if !matches!(need, Need::Login | Need::Page(_)) => {
                let realm = match &self.options.realm {
                    Some(realm) => realm.clone(),
                    None => format!("{}{TOKEN_PATH}", visit.base(self.address)),
                };
                let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{}\"", self.options.service);
                if let Some(scope) = need.scope() {
                    challenge.push_str(&format!(",scope=\"{scope}\""));
                }
                if let Some(error) = error {
                    challenge.push_str(&format!(",error=\"{error}\""));
                }
                challenge
            }
            _ => self.basic_challenge(),
        };
        refused(message, &challenge)
    }

    fn basic_challenge(&self) -> String {
        format!("Basic realm=\"{}\",charset=\"UTF-8\"", self.options.service)
    }
}

impl Need {
    /// As clients ask for it (token specification, "Token Scope").
    fn scope(&self) -> Option<String> {
        match self {
            Self::Nothing | Self::Login | Self::Entry | Self::Page(_) => None,
            Self::Catalog => Some("registry:catalog:*".into()),
            Self::Repository(name, action) => {
                // Whoever writes looks at what is there.
                let actions = match action {
                    Action::Pull => "pull",
                    Action::Push => "pull,push",
                    Action::Delete => "pull,delete",
                };
                Some(format!("repository:{}:{actions}", name.as_str()))
            }
        }
    }
}

impl Caller {
    /// Whether a repository may be read.
    pub(super) fn may_read(&self, name: &str) -> bool {
        let Some(access) = &self.access else { return true };
        access.allows(self.user.as_ref(), name, Action::Pull)
            && self.has_shown_for("repository", name, Action::Pull.name())
    }

    /// Whether a repository may be seen in lists: a token for lists is not one for each repository in them.
    pub(super) fn may_see(&self, name: &str) -> bool {
        self.access.as_ref().is_none_or(|access| access.allows(self.user.as_ref(), name, Action::Pull))
    }

    fn check(&self, access: &Access, visit: &Visit, need: &Need) -> Result<(), Refusal> {
        let (is_allowed, is_shown) = match need {
            Need::Nothing => (true, true),
            Need::Login => (self.user.is_some(), true),
            Need::Page(None) => (self.user.is_some() || rules::has_anonymous(&access.options.rules), true),
            Need::Page(Some(name)) => (access.allows(self.user.as_ref(), name.as_str(), Action::Pull), true),
            // Also of somebody who has no more than a token for those who are not logged in.
            Need::Entry => (!matches!(self.shown, Shown::Nothing), true),
            Need::Catalog => {
                let (kind, name, action) = CATALOG;
                let is_allowed = self.user.is_some() || rules::has_anonymous(&access.options.rules);
                (is_allowed, self.has_shown_for(kind, name, action))
            }
            Need::Repository(name, action) => (
                access.allows(self.user.as_ref(), name.as_str(), *action),
                self.has_shown_for("repository", name.as_str(), action.name()),
            ),
        };
        match (is_allowed, &self.user) {
            (true, _) if is_shown => Ok(()),
            (false, Some(user)) => {
                let message = format!("user `{}` may not do this here", user.name);
                Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", message))
            }
            _ => Err(self.ask(access, visit, need)),
        }
    }

    fn ask(&self, access: &Access, visit: &Visit, need: &Need) -> Refusal {
        match self.shown {
            Shown::Token(_) => {
                access.unauthorized(visit, need, Some("insufficient_scope"), "the token is not for this")
            }
            _ => access.unauthorized(visit, need, None, "authentication required"),
        }
    }

    fn has_shown_for(&self, kind: &str, name: &str, action: &str) -> bool {
        match &self.shown {
            Shown::Nothing | Shown::Password => true,
            Shown::Token(grants) => grants.iter().any(|grant| grant.gives(kind, name, action)),
        }
    }
}

fn refused(message: &str, challenge: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message).header(header::WWW_AUTHENTICATE, challenge)
}

/// What a request shows of who sends it.
enum Presented {
    Nothing,
    Password(String, String),
    Token(String),
    Nonsense,
}

fn credentials(headers: &HeaderMap) -> Presented {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Presented::Nothing };
    let read = || {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Presented::Token(rest.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (name, password) = text.split_once(':')?;
        Some(Presented::Password(name.to_owned(), password.to_owned()))
    };
    read().unwrap_or(Presented::Nonsense)
}
