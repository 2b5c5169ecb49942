//! What a clone remembers of where it comes from: the address, and the branch that begins there. Files only; no process.

use std::path::Path;

use super::head::{git_dir, text};

/// Address of `origin` and its default branch.
pub(super) fn read(root: &Path) -> (Option<String>, Option<String>) {
    let Some(git_dir) = git_dir(root) else { return (None, None) };
    let shared = text(&git_dir.join("commondir")).map_or_else(|| git_dir.clone(), |path| git_dir.join(path));
    let head = text(&shared.join("refs/remotes/origin/HEAD"));
    let branch = head.and_then(|head| Some(head.strip_prefix("ref: refs/remotes/origin/")?.to_owned()));
    let url = text(&shared.join("config")).and_then(|config| url(&config)).map(|url| web_url(&url));
    (url, branch)
}

/// `url` of `[remote "origin"]` (git-config, "Syntax").
fn url(config: &str) -> Option<String> {
    let mut is_origin = false;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            is_origin = line.starts_with("[remote \"origin\"]");
        } else if let Some((key, value)) = line.split_once('=')
            && is_origin
            && key.trim() == "url"
        {
            return Some(value.trim().trim_matches('"').to_owned());
        }
    }
    None
}

/// An address to look at: `git@host:team/app.git` is `https://host/team/app`. Passwords stay out.
pub(super) fn web_url(url: &str) -> String {
    let url = url.strip_suffix('/').unwrap_or(url);
    let url = url.strip_suffix(".git").unwrap_or(url);
    if let Some((scheme, rest)) = url.split_once("://") {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.rsplit('@').next().unwrap_or(host);
        // A port of SSH says nothing about the pages.
        return match scheme {
            "ssh" | "git+ssh" => format!("https://{}/{path}", host.split(':').next().unwrap_or(host)),
            scheme => format!("{scheme}://{host}/{path}"),
        };
    }
    match url.split_once(':') {
        Some((host, path)) if !host.contains('/') && !path.is_empty() => {
            format!("https://{}/{path}", host.rsplit('@').next().unwrap_or(host))
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_to_pages_without_passwords() {
        for (url, expected) in [
            ("git@git.example:team/app.git", "https://git.example/team/app"),
            ("ssh://git@git.example:2222/team/app.git", "https://git.example/team/app"),
            ("https://ann:secret@git.example/team/app.git", "https://git.example/team/app"),
            ("https://git.example:8443/team/app/", "https://git.example:8443/team/app"),
            ("/srv/git/app.git", "/srv/git/app"),
        ] {
            assert_eq!(web_url(url), expected);
        }
        let config =
            "[core]\n\turl = no\n[remote \"fork\"]\n\turl = no\n[remote \"origin\"]\n\turl = yes\n\tfetch = x\n";
        assert_eq!(url(config).as_deref(), Some("yes"));
    }
}
