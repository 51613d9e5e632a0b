//! Comparing records with what lies on the stores, in the connect phase: what is there is taken
//! over, what is missing is downloaded again, what nobody knows is deleted.

use std::sync::Arc;

use agent_protocol::storage::{
    DeleteCommand, ListTemplateAnswer, ListTemplateCommand, ListVolumeAnswer, ListVolumeCommand,
    TemplateProp,
};
use agent_protocol::{Dictionary, Envelope};

use crate::attachment::Attachment;
use crate::commands::base;
use crate::config::StrayImages;
use crate::core::Core;
use crate::events::EventKind;
use crate::images::{self, Image, ImageKind, ImageState};
use crate::sync::lock;
use crate::transfers;
use bedrock::chain;

/// What to do after a comparison.
#[derive(Debug, Default)]
struct Plan {
    /// Records as they are on the store.
    found: Vec<(i64, TemplateProp)>,
    /// Records to download again.
    missing: Vec<i64>,
    /// Number and path of what has no record.
    strays: Vec<(i64, Option<String>)>,
}

/// Asks for volumes, then templates, store by store, and acts on what comes.
pub(crate) async fn run(core: &Arc<Core>, attachment: &Arc<Attachment>, log_id: &str) {
    for store in core.config.stores.iter().filter(|store| store.writable) {
        let volumes = ListVolumeCommand {
            store: Some(images::store_object(&store.url)),
            sec_url: Some(store.url.as_str().into()),
            base: base(log_id),
            ..ListVolumeCommand::default()
        };
        let answer = core.ask(attachment, &volumes, core.answer_timeout(0)).await;
        let found = answer.map(|answer| volume_list(&answer));
        act(core, attachment, &store.url, true, found, log_id).await;

        let templates = ListTemplateCommand {
            store: Some(images::store_object(&store.url)),
            base: base(log_id),
            ..ListTemplateCommand::default()
        };
        let answer = core.ask(attachment, &templates, core.answer_timeout(0)).await;
        let found = answer.map(|answer| template_list(&answer));
        act(core, attachment, &store.url, false, found, log_id).await;
    }
}

fn volume_list(answer: &Envelope) -> Option<Dictionary<TemplateProp>> {
    let answer = answer.open::<ListVolumeAnswer>().ok()?;
    if answer.base.result { answer.template_infos } else { None }
}

fn template_list(answer: &Envelope) -> Option<Dictionary<TemplateProp>> {
    let answer = answer.open::<ListTemplateAnswer>().ok()?;
    if answer.base.result { answer.template_infos } else { None }
}

/// Acts on one list; without one nothing is compared.
async fn act(
    core: &Arc<Core>,
    attachment: &Arc<Attachment>,
    store: &str,
    is_volume: bool,
    found: Result<Option<Dictionary<TemplateProp>>, crate::attachment::SendError>,
    log_id: &str,
) {
    let found = match found {
        Ok(Some(found)) => found,
        Ok(None) => return tracing::warn!(store, is_volume, "store not compared, it has no list"),
        Err(error) => {
            return tracing::warn!(store, is_volume, error = chain(&error), "store not compared");
        }
    };
    let records = lock(&core.images).all();
    let records = records.iter().filter(|image| {
        image.store == store && (image.wanted.kind == ImageKind::Volume) == is_volume
    });
    let plan = compare(records, &found);
    for (id, properties) in plan.found {
        lock(&core.images).update(id, |image| adopt(image, properties));
        core.journal.record(0, None, EventKind::Image { id });
    }
    for id in plan.missing {
        transfers::start(core, id);
    }
    if core.config.images.strays == StrayImages::Keep {
        return;
    }
    for (id, path) in plan.strays {
        let data = images::stray_object(store, is_volume, id, path);
        let command = DeleteCommand { data: Some(data), delete_chain: None, base: base(log_id) };
        if let Err(error) = core.ask(attachment, &command, core.answer_timeout(0)).await {
            tracing::warn!(store, id, error = chain(&error), "stray image not deleted");
        }
    }
}

/// Templates are named by their unique name, volumes by their number.
fn compare<'a>(records: impl Iterator<Item = &'a Image>, found: &Dictionary<TemplateProp>) -> Plan {
    let mut plan = Plan::default();
    let mut known = Vec::new();
    for image in records {
        let key = match image.wanted.kind {
            ImageKind::Volume => image.id.to_string(),
            ImageKind::Template | ImageKind::Iso => image.unique_name.clone(),
        };
        match found.get(&key) {
            Some(properties) if !properties.is_corrupted => {
                plan.found.push((image.id, properties.clone()));
            }
            // Nobody but the user has the file of an upload.
            _ if image.wanted.url.is_empty() => {}
            _ => plan.missing.push(image.id),
        }
        known.push(key);
    }
    let strays = found.iter().filter(|(key, _)| !known.contains(key));
    plan.strays = strays.map(|(_, found)| (found.id, found.install_path.clone())).collect();
    plan
}

fn adopt(image: &mut Image, properties: TemplateProp) {
    image.state = ImageState::Downloaded;
    image.percent = 100;
    image.install_path = properties.install_path;
    image.size = properties.size;
    image.physical_size = properties.physical_size;
}

#[cfg(test)]
mod tests {
    use agent_protocol::storage::ImageFormat;

    use super::*;
    use crate::images::{Images, NewImage};

    fn property(id: i64, is_corrupted: bool) -> TemplateProp {
        TemplateProp {
            install_path: Some(format!("path/{id}")),
            id,
            is_corrupted,
            ..TemplateProp::default()
        }
    }

    fn record(images: &mut Images, kind: ImageKind) -> Image {
        let wanted = NewImage {
            kind,
            name: "n".to_owned(),
            url: "http://h/f".to_owned(),
            format: ImageFormat::Qcow2,
            hvm: true,
            checksum: None,
        };
        let id = images.register(wanted, "nfs://h/s".to_owned());
        images.get(id).unwrap()
    }

    #[test]
    fn sound_ones_are_taken_over_others_come_again_and_strays_go() {
        let mut images = Images::new().unwrap();
        let sound = record(&mut images, ImageKind::Template);
        let corrupt = record(&mut images, ImageKind::Template);
        let missing = record(&mut images, ImageKind::Iso);
        let found: Dictionary<TemplateProp> = [
            (sound.unique_name.clone(), property(sound.id, false)),
            (corrupt.unique_name.clone(), property(corrupt.id, true)),
            ("stray".to_owned(), property(9001, false)),
        ]
        .into_iter()
        .collect();
        let plan = compare([&sound, &corrupt, &missing].into_iter(), &found);
        assert_eq!(plan.found, [(sound.id, property(sound.id, false))]);
        assert_eq!(plan.missing, [corrupt.id, missing.id]);
        assert_eq!(plan.strays, [(9001, Some("path/9001".to_owned()))]);
    }

    #[test]
    fn volumes_are_found_by_number() {
        let mut images = Images::new().unwrap();
        let volume = record(&mut images, ImageKind::Volume);
        let found = [(volume.id.to_string(), property(volume.id, false))].into_iter().collect();
        let plan = compare(std::iter::once(&volume), &found);
        assert_eq!((plan.found.len(), plan.missing.len(), plan.strays.len()), (1, 0, 0));
    }
}
