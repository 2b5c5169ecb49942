//! Gives tokens, in both ways that clients ask for them (distribution's "Token Authentication Specification", and "OAuth2 Token
//! Authentication" with passwords and refresh tokens).

use std::time::{Duration, SystemTime};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::timeout;

use super::{
    Access, Action, CATALOG, Gate, Presented, Visit, credentials, refused, rules,
    token::{Grant, Use},
    users::User,
};
use crate::server::{answer::Refusal, routes::Query, storage::RepositoryName};

/// Forms hold a password or a refresh token, and scopes.
const FORM_BYTES_MAX: usize = 64 * 1024;
const FORM_WAIT_MAX: Duration = Duration::from_secs(10);
/// A client that mounts asks for a few repositories.
const SCOPES_MAX: usize = 64;

/// What is asked for.
struct Wish {
    user: Option<User>,
    scopes: Vec<String>,
    /// A refresh token as well.
    is_offline: bool,
}

/// `GET` and `POST` of a token.
pub(in crate::server) async fn give_token(
    gate: &Gate,
    visit: &mut Visit,
    method: &Method,
    query: Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let unknown = || Refusal::missing("NAME_UNKNOWN", "this registry gives no tokens");
    let access = gate.access.as_ref().ok_or_else(unknown)?;
    let wish = match *method {
        Method::GET => asked_by_query(gate, access, visit, &query, headers).await?,
        Method::POST => asked_by_form(gate, access, visit, body).await?,
        _ => return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the operation is not supported")),
    };
    if let Some(user) = &wish.user {
        visit.is_of(user);
        gate.meter.count_user(&user.name)?;
    }
    grant(access, &wish)
}

async fn asked_by_query(
    gate: &Gate,
    access: &Access,
    visit: &mut Visit,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Wish, Refusal> {
    check_service(access, query)?;
    let user = match credentials(headers) {
        Presented::Nothing => None,
        Presented::Password(name, password) => {
            let user = gate.log_in(access, visit, &name, &password).await?;
            Some(user.ok_or_else(|| wrong_login(access))?)
        }
        Presented::Token(_) | Presented::Nonsense => {
            visit.shows_credentials();
            return Err(refused("tokens are given for a user and a password", &access.basic_challenge()));
        }
    };
    // Clients send several parameters, or one with several scopes in it.
    let scopes = query.all("scope").flat_map(|scopes| scopes.split(' ')).map(str::to_owned).collect();
    Ok(Wish { user, scopes, is_offline: query.get("offline_token") == Some("true") })
}

async fn asked_by_form(gate: &Gate, access: &Access, visit: &mut Visit, body: Body) -> Result<Wish, Refusal> {
    let unreadable = |_| Refusal::bad("UNSUPPORTED", "the form cannot be read");
    let bytes = timeout(FORM_WAIT_MAX, to_bytes(body, FORM_BYTES_MAX)).await.map_err(|_| unreadable(()))?;
    let bytes = bytes.map_err(|_| unreadable(()))?;
    let form = Query::parse(&String::from_utf8_lossy(&bytes));
    check_service(access, &form)?;
    visit.shows_credentials();
    let missing = |what| Refusal::bad("UNSUPPORTED", format!("`{what}` is missing"));
    let user = match form.get("grant_type") {
        Some("password") => {
            let name = form.get("username").ok_or_else(|| missing("username"))?;
            let password = form.get("password").ok_or_else(|| missing("password"))?;
            gate.log_in(access, visit, name, password).await?.ok_or_else(|| wrong_login(access))?
        }
        Some("refresh_token") => {
            let token = form.get("refresh_token").ok_or_else(|| missing("refresh_token"))?;
            let believed = access.believe(token, Use::Refresh);
            let void =
                |reason: &dyn std::fmt::Display| refused(&format!("{reason}; log in again"), &access.basic_challenge());
            match believed {
                Ok((Some(user), _)) => user,
                Ok((None, _)) => return Err(void(&"a refresh token belongs to a user")),
                Err(error) => return Err(void(&error)),
            }
        }
        _ => return Err(Refusal::bad("UNSUPPORTED", "`grant_type` is neither `password` nor `refresh_token`")),
    };
    let scopes = form.all("scope").flat_map(|scopes| scopes.split(' ')).map(str::to_owned).collect();
    Ok(Wish { user: Some(user), scopes, is_offline: form.get("access_type") == Some("offline") })
}

fn grant(access: &Access, wish: &Wish) -> Result<Response, Refusal> {
    // There is nothing to be had without a login: said at once, it is understood best.
    if wish.user.is_none() && !rules::has_anonymous(&access.options.rules) {
        return Err(refused("authentication required", &access.basic_challenge()));
    }
    let options = &access.options;
    let (user, now) = (wish.user.as_ref(), SystemTime::now());
    let scopes = wish.scopes.iter().filter(|scope| !scope.is_empty()).take(SCOPES_MAX);
    let grants: Vec<Grant> = scopes.filter_map(|scope| granted(access, user, scope)).collect();
    let scope: Vec<String> =
        grants.iter().map(|it| format!("{}:{}:{}", it.kind, it.name, it.actions.join(","))).collect();
    let token = access.signer.sign(Use::Access, user, grants, now, options.token_life);
    let mut document = json!({
        "token": token,
        "access_token": token,
        "scope": scope.join(" "),
        "expires_in": options.token_life.as_secs(),
        "issued_at": Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
    });
    if let Some(user) = user.filter(|_| wish.is_offline) {
        let token = access.signer.sign(Use::Refresh, Some(user), Vec::new(), now, options.refresh_life);
        document["refresh_token"] = token.into();
    }
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, document.to_string()).into_response())
}

/// What of a scope is given: `TYPE:NAME:ACTION,ACTION`. Names may have colons; what is not understood is given to nobody.
fn granted(access: &Access, user: Option<&User>, scope: &str) -> Option<Grant> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, wanted) = rest.rsplit_once(':')?;
    // Docker writes `repository(plugin)` for plugins.
    let kind = kind.split('(').next().unwrap_or(kind);
    if (kind, name, wanted) == CATALOG {
        let actions = vec![wanted.to_owned()];
        return Some(Grant { kind: kind.to_owned(), name: name.to_owned(), actions });
    }
    if kind != "repository" {
        return None;
    }
    let repository = RepositoryName::parse(name)?;
    let wanted: Vec<&str> = wanted.split(',').collect();
    let is_wanted = |action: &Action| wanted.contains(&action.name()) || wanted.contains(&"*");
    let given = Action::ALL.into_iter().filter(is_wanted);
    let given = given.filter(|action| access.allows(user, repository.as_str(), *action));
    let actions: Vec<String> = given.map(|action| action.name().to_owned()).collect();
    (!actions.is_empty()).then(|| Grant { kind: kind.to_owned(), name: name.to_owned(), actions })
}

fn check_service(access: &Access, query: &Query) -> Result<(), Refusal> {
    let service = query.get("service").unwrap_or_default();
    if service.is_empty() || service == access.options.service {
        return Ok(());
    }
    Err(Refusal::bad("UNSUPPORTED", format!("this registry is the service `{}`", access.options.service)))
}

fn wrong_login(access: &Access) -> Refusal {
    refused("wrong user name or password", &access.basic_challenge())
}
