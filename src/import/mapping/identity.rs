//! Which role an agent is, and who it is for the server.

use super::super::given::{Given, Values};
use super::{Draft, Kind};

/// The simple name of a class.
fn class_name(value: &str) -> &str {
    value.rsplit('.').next().unwrap_or(value)
}

/// The role: by the resource class, else by what only one of them is told.
pub(super) fn kind(values: &mut Values, draft: &mut Draft<'_>) -> Option<Kind> {
    // The type of a system VM's boot arguments wins over the file that it was installed with.
    let by_type = match values.peek("type") {
        Some("secstorage") => Some(Kind::SecondaryStorage),
        Some("consoleproxy") => Some(Kind::ConsoleProxy),
        _ => None,
    };
    let resource = values.peek("resource").map(|value| class_name(value).to_owned());
    let by_resource = match resource.as_deref() {
        Some("ConsoleProxyResource") => Some(Kind::ConsoleProxy),
        Some("NfsSecondaryStorageResource" | "PremiumSecondaryStorageResource") => {
            Some(Kind::SecondaryStorage)
        }
        _ => None,
    };
    if let Some(class) = resource.filter(|_| by_resource.is_none() && by_type.is_none()) {
        let why = format!(
            "{class:?} is neither secondary storage nor console proxy; only the link is taken \
             over: put the role in yourself"
        );
        let place = values.take("resource").map_or_else(String::new, |given| given.place);
        draft.doubtful("resource", &place, why);
        return None;
    }
    let kind = by_type.or(by_resource).or_else(|| by_traces(values));
    if kind.is_none() {
        let why = "nothing says whether this is secondary storage or the console proxy; add \
                   type=secstorage or type=consoleproxy behind the directory";
        draft.doubtful("resource", &values.directory.display().to_string(), why);
    }
    kind
}

fn by_traces(values: &Values) -> Option<Kind> {
    let has = |key: &str| values.peek(key).is_some();
    let guid = values.peek("guid").unwrap_or_default();
    if has("secondary.storage.vm") || has("mount.path") || guid.starts_with("Secondary") {
        Some(Kind::SecondaryStorage)
    } else if has("proxy_vm")
        || guid.starts_with("Proxy.")
        || guid.starts_with("ConsoleProxy.")
        || values.files.contains(&"consoleproxy.properties")
    {
        Some(Kind::ConsoleProxy)
    } else {
        None
    }
}

pub(super) fn map(kind: Kind, values: &mut Values, draft: &mut Draft<'_>) {
    let section = kind.section();
    if let Some(given) = values.take("resource") {
        let class = class_name(&given.value).to_owned();
        if kind == Kind::SecondaryStorage && class.starts_with("Premium") {
            draft.keep("resource", &given, &format!("{section}.resource_name"), class);
        } else {
            draft.ignored("resource", &given, format!("chooses role {}", kind.short()));
        }
    }
    let mut row = None;
    if kind == Kind::ConsoleProxy
        && let Some(given) = values.take("proxy_vm")
    {
        if let Ok(id) = given.value.parse::<i64>() {
            draft.keep("proxy_vm", &given, &format!("{section}.proxy_vm"), id);
            row = (id > 0).then_some((id, given));
        } else {
            draft.ignored("proxy_vm", &given, "not a number: 0 holds, as for the agent");
        }
    }
    let guid = values.take("guid");
    name(kind, values, draft, guid.as_ref(), row);
    let Some(guid) = guid else { return };
    if guid.value.ends_with(&format!("-{}", kind.resource())) {
        let why = "the agent appends the class itself; give the guid without its end";
        draft.doubtful("guid", &guid.place, why);
    } else {
        draft.keep("guid", &guid, &format!("{section}.guid"), guid.value.as_str());
    }
}

fn name(
    kind: Kind,
    values: &mut Values,
    draft: &mut Draft<'_>,
    guid: Option<&Given>,
    row: Option<(i64, Given)>,
) {
    let to = format!("{}.name", kind.section());
    let stored = format!("{}.name", kind.resource());
    for key in ["name", stored.as_str()] {
        let Some(given) = values.take(key) else { continue };
        draft.keep(key, &given, &to, given.value.as_str());
        return;
    }
    if let Some((id, given)) = row {
        let why = "the server looks for the host under the name of its row; correct it when \
                   instance.name is not VM";
        draft.map("proxy_vm", &given.place, &to, format!("v-{id}-VM"), why);
    } else if let Some(guid) = guid {
        let why = "the agent sends the machine's name, which no server looks for";
        draft.map("guid", &guid.place, &to, guid.value.as_str(), why);
    } else {
        let place = values.directory.display().to_string();
        let why =
            "neither name nor guid is given: add name=s-N-VM (or v-N-VM) behind the directory";
        draft.doubtful("name", &place, why);
    }
}
