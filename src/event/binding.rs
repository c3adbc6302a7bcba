//! Whether a key that is bound to some repositories may vouch for a delivery.
//!
//! A bound key vouches for its repositories only, but whoever holds it writes the whole body, and the
//! service behind the gate may look at another field of it than the gate does. So *every* place is read in
//! which some service looks for the repository, whatever host the delivery claims to be of, and each
//! address there must be within the binding:
//!
//! 1. The objects `repository`, `project` and `repo` of the body, `resource.repository` (Azure),
//!    `pullRequest.toRef.repository` (Bitbucket Server), `pullrequest.destination.repository` (Bitbucket Cloud),
//!    `pull_request.base.repo` (GitHub), `object_attributes.target` (GitLab), `target_repo` (Gitee), and all of these
//!    in `data`; in them every field that hosts put an address into, and `links`.
//! 2. `origin` and the fields for addresses at the top, and `repository`, `project` or `repo` where they are a text.
//! 3. Gerrit's projects, at `X-Origin-Url`.
//! 4. Names (`full_name`, `path_with_namespace`; Bitbucket Server's project and slug), taken for repositories at each
//!    host of the addresses beside them.
//!
//! Addresses of a host's API are taken for the repository that they name. Azure's name none, only an
//! organisation, which must be that of an address beside it. `homepage` is GitLab's address of the repository and
//! GitHub's of some web site; it counts if it has at least the two segments that the former has.
//!
//! Names of fields are compared as Go does, without case, and a field that stands twice is read twice. What
//! stands at such a place and cannot be read is an error, and so not within.

use std::borrow::Cow;

use http::HeaderMap;

use super::json::{Reader, Shape};
use super::shape::header;
use super::{Event, EventError, Kind, gerrit};
use crate::provider::Provider;
use crate::repository::{Layout, Patterns, RepositoryUrl};

/// Whether a key that is bound to `binding` may vouch for a delivery, of which `event` was read: all
/// addresses are within the binding. Without any, only a ping is.
///
/// Costs a second pass over the payload, so it is to be asked only for bound keys.
pub fn is_within(
    binding: &Patterns,
    event: &Event<'_>,
    provider: Provider,
    headers: &HeaderMap,
    payload: &[u8],
) -> bool {
    let own = match &event.repository {
        Some(repository) => repository.key().is_some_and(|key| binding.matches(key)),
        None => event.kind == Kind::Ping,
    };
    own && addresses(provider, headers, payload)
        .is_ok_and(|addresses| addresses.iter().all(|address| binding.matches(address)))
}

/// Every repository that a delivery names, at any place where a service could look for it. Some come
/// several times.
///
/// # Errors
///
/// When something stands at such a place that is no address, and when the payload is no JSON object.
pub fn addresses(
    provider: Provider,
    headers: &HeaderMap,
    payload: &[u8],
) -> Result<Vec<RepositoryUrl>, EventError> {
    let mut walk = Walk {
        provider,
        layout: match provider {
            Provider::BitbucketServer => Layout::BitbucketServer,
            Provider::Generic | Provider::Manual | Provider::StandardWebhooks => Layout::Unknown,
            _ => Layout::Plain,
        },
        origin: header(headers, &gerrit::ORIGIN_HEADER)?,
        found: Vec::new(),
    };
    let mut reader = Reader::new(payload);
    if reader.shape() != Shape::Object {
        return Err(EventError::NoObject);
    }
    walk.object(Place::Top, &mut reader)?;
    reader.end()?;
    Ok(walk.found)
}

/// An object in which there are addresses, or objects that hold some.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Data,
    /// Azure's `resource`.
    Resource,
    /// A pull or merge request.
    PullRequest,
    /// What a pull request goes into.
    Target,
    /// Gerrit's `refUpdate` or `change`.
    Update,
}

/// What a field is.
enum Field {
    Place(Place),
    Repository,
    Project,
    Address(&'static str),
    Nothing,
}

impl Field {
    fn of(place: Place, name: &str) -> Self {
        match (place, name) {
            (Place::Top | Place::Data | Place::Resource, "repository")
            | (Place::Top | Place::Data, "project" | "repo")
            | (Place::Target, "repository" | "repo" | "project")
            | (Place::PullRequest, "target") => Self::Repository,
            (Place::Top, "data") => Self::Place(Place::Data),
            (Place::Top | Place::Data, "resource") => Self::Place(Place::Resource),
            (
                Place::Top | Place::Data,
                "pullrequest" | "pull_request" | "merge_request" | "object_attributes",
            ) => Self::Place(Place::PullRequest),
            (Place::Top | Place::Data | Place::PullRequest, "target_repo")
            | (Place::PullRequest, "toref" | "destination" | "base") => Self::Place(Place::Target),
            (Place::Top | Place::Data, "refupdate" | "refupdates" | "change") => {
                Self::Place(Place::Update)
            }
            (Place::Update, "project") => Self::Project,
            (Place::Top | Place::Data, "origin") => Self::Address("origin"),
            // Other hosts put the address of an event or a page into these.
            (Place::Top | Place::Data, "url" | "html_url" | "web_url" | "weburl" | "homepage") => {
                Self::Nothing
            }
            (Place::Top | Place::Data, name) => {
                address_field(name).map_or(Self::Nothing, Self::Address)
            }
            _ => Self::Nothing,
        }
    }
}

/// The fields of a repository that hosts put an address into.
fn address_field(name: &str) -> Option<&'static str> {
    const NAMES: [&str; 15] = [
        "clone_url",
        "git_http_url",
        "git_ssh_url",
        "git_svn_url",
        "git_url",
        "homepage",
        "html_url",
        "http_url",
        "remoteurl",
        "ssh_url",
        "sshurl",
        "svn_url",
        "url",
        "web_url",
        "weburl",
    ];
    NAMES.into_iter().find(|known| *known == name)
}

struct Walk<'h> {
    provider: Provider,
    layout: Layout,
    origin: Option<&'h str>,
    found: Vec<RepositoryUrl>,
}

impl Walk<'_> {
    fn object(&mut self, place: Place, reader: &mut Reader<'_>) -> Result<(), EventError> {
        reader.members(|name, reader| {
            let name = name.decode().map(fold).unwrap_or_default();
            match Field::of(place, &name) {
                Field::Place(inner) if reader.shape() == Shape::Array => {
                    reader.elements(|reader| self.object(inner, reader))?;
                }
                Field::Place(inner) => self.object(inner, reader)?,
                Field::Repository => self.repository(reader)?,
                Field::Project => self.project(reader)?,
                Field::Address(field) => self.address(field, reader)?,
                Field::Nothing => reader.skip()?,
            }
            Ok(())
        })?;
        Ok(())
    }

    /// A repository as an object, or as a text that is its address or, with Gerrit, its name.
    fn repository(&mut self, reader: &mut Reader<'_>) -> Result<(), EventError> {
        match reader.shape() {
            Shape::Object => {}
            Shape::String if self.provider == Provider::Gerrit => return self.project(reader),
            _ => return self.address("repository", reader),
        }
        let first = self.found.len();
        let mut names = Vec::new();
        let mut organisations = Vec::new();
        let (mut project, mut slug) = (None, None);
        reader.members(|name, reader| {
            let name = name.decode().map(fold).unwrap_or_default();
            match &*name {
                "full_name" => names.extend(text("full_name", reader)?),
                "path_with_namespace" => names.extend(text("path_with_namespace", reader)?),
                "slug" => slug = text("slug", reader)?,
                "project" if reader.shape() == Shape::Object => {
                    reader.members(|name, reader| {
                        if name.decode().map(fold).as_deref() == Some("key") {
                            project = text("project.key", reader)?;
                            return Ok(());
                        }
                        reader.skip()
                    })?;
                }
                "links" => self.links(reader)?,
                name => match address_field(name) {
                    Some(field) => {
                        if let Some(organisation) = self.address_in_repository(field, reader)? {
                            organisations.push(organisation);
                        }
                    }
                    None => reader.skip()?,
                },
            }
            Ok(())
        })?;
        if let (Some(project), Some(slug), []) = (&project, &slug, &names[..]) {
            names.push(format!("{project}/{slug}").to_lowercase().into());
        }
        let mut hosts: Vec<String> =
            self.found[first..].iter().map(|url| url.authority().to_owned()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        if hosts.is_empty() && self.provider == Provider::BitbucketCloud {
            hosts.push("bitbucket.org".to_owned());
        }
        if hosts.is_empty() && !names.is_empty() {
            return Err(EventError::Malformed { field: "full_name" });
        }
        for organisation in organisations {
            if !self.found[first..].iter().any(|url| self::organisation(url) == organisation) {
                return Err(EventError::Malformed { field: "url" });
            }
        }
        for (host, name) in hosts.iter().flat_map(|host| names.iter().map(move |name| (host, name)))
        {
            self.found.push(read(&format!("https://{host}/{name}"), Layout::Plain, "full_name")?);
        }
        Ok(())
    }

    /// `links.clone[].href`, `links.html.href` and `links.self`, which is a list on some hosts and not on others.
    fn links(&mut self, reader: &mut Reader<'_>) -> Result<(), EventError> {
        if !matches!(reader.shape(), Shape::Object | Shape::Null) {
            return Err(EventError::Malformed { field: "links" });
        }
        reader.members(|name, reader| {
            let field = match name.decode().map(fold).as_deref() {
                Some("clone") => "links.clone",
                Some("html") => "links.html",
                Some("self") => "links.self",
                _ => return reader.skip(),
            };
            match reader.shape() {
                Shape::Array => {
                    reader.elements(|reader| self.link(field, reader))?;
                    Ok(())
                }
                _ => self.link(field, reader),
            }
        })?;
        Ok(())
    }

    fn link(&mut self, field: &'static str, reader: &mut Reader<'_>) -> Result<(), EventError> {
        match reader.shape() {
            Shape::Object => {}
            Shape::Null => return reader.skip(),
            _ => return Err(EventError::Malformed { field }),
        }
        reader.members(|name, reader| match name.decode().map(fold).as_deref() {
            Some("href") => self.address(field, reader),
            _ => reader.skip(),
        })?;
        Ok(())
    }

    /// One of Gerrit's projects.
    fn project(&mut self, reader: &mut Reader<'_>) -> Result<(), EventError> {
        const FIELD: &str = "project";
        if let Some(project) = text(FIELD, reader)? {
            let origin = self.origin.ok_or(EventError::Malformed { field: "x-origin-url" })?;
            self.found.push(read(&gerrit::address(origin, &project), Layout::Plain, FIELD)?);
        }
        Ok(())
    }

    fn address(&mut self, field: &'static str, reader: &mut Reader<'_>) -> Result<(), EventError> {
        match self.address_in_repository(field, reader)? {
            Some(_) => Err(EventError::Malformed { field }),
            None => Ok(()),
        }
    }

    /// An address; or, if it is of Azure's API, the organisation that it names.
    fn address_in_repository(
        &mut self,
        field: &'static str,
        reader: &mut Reader<'_>,
    ) -> Result<Option<String>, EventError> {
        let Some(address) = text(field, reader)? else { return Ok(None) };
        if let Some((organisation, _)) = address.split_once("/_apis/") {
            let url = read(&format!("{organisation}/_git/any"), self.layout, field)?;
            return Ok(Some(self::organisation(&url)));
        }
        match RepositoryUrl::parse_as(&address, self.layout) {
            Ok(url) if field == "homepage" && url.owner().is_empty() => {}
            Ok(url) => self.found.push(unmap(url)),
            Err(_) if field == "homepage" && is_web_site(&address) => {}
            Err(_) => return Err(EventError::Malformed { field }),
        }
        Ok(None)
    }
}

/// A text that is not empty; null is none, and anything else an error.
fn text<'a>(
    field: &'static str,
    reader: &mut Reader<'a>,
) -> Result<Option<Cow<'a, str>>, EventError> {
    match reader.shape() {
        Shape::Null => reader.skip().map(|()| None),
        Shape::String => {
            let text = reader.text()?.ok_or(EventError::Malformed { field })?;
            Ok(Some(text).filter(|text| !text.is_empty()))
        }
        _ => Err(EventError::Malformed { field }),
    }
}

fn read(address: &str, layout: Layout, field: &'static str) -> Result<RepositoryUrl, EventError> {
    RepositoryUrl::parse_as(address, layout).map_err(|_| EventError::Malformed { field })
}

/// The name of a field without case, by the rules of Go's encoding/json: the long s and the Kelvin sign
/// count as s and k.
fn fold(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return name;
    }
    let fold = |c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}

/// The host of an address and the first segment of its path.
fn organisation(url: &RepositoryUrl) -> String {
    let first = url.path().split('/').next().unwrap_or_default();
    format!("{}/{first}", url.authority())
}

/// A web address without a path.
fn is_web_site(address: &str) -> bool {
    RepositoryUrl::parse(&format!("{}/x", address.trim_end_matches('/')))
        .is_ok_and(|url| url.path() == "x" && address.starts_with("http"))
}

/// The repository that an address of a host's API, or of Bitbucket Server's pages, names.
fn unmap(url: RepositoryUrl) -> RepositoryUrl {
    let segments: Vec<&str> = url.path().split('/').collect();
    let named = match (url.authority(), &segments[..]) {
        ("api.github.com", ["repos", owner, name]) => format!("github.com/{owner}/{name}"),
        ("api.bitbucket.org", ["2.0", "repositories", owner, name]) => {
            format!("bitbucket.org/{owner}/{name}")
        }
        (host, ["api", "v1" | "v3", "repos", owner, name]) => format!("{host}/{owner}/{name}"),
        (host, [.., "projects", project, "repos", name, "browse"]) => {
            format!("{host}/{}/{name}", project.to_lowercase())
        }
        (host, [.., "users", user, "repos", name, "browse"]) => format!("{host}/~{user}/{name}"),
        _ => return url,
    };
    RepositoryUrl::parse_as(&format!("https://{named}"), Layout::Plain).unwrap_or(url)
}
