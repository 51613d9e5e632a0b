//! Downloads on the wire. Every failure is an answer of the download's own class with an error
//! status and the install path: the server ignores any other class and forgets the path otherwise.

use agent_protocol::agent::{AnswerBase, CommandBase};
use agent_protocol::storage::{
    DataStoreTO, DownloadAnswer, DownloadCommand, DownloadProgressCommand, DownloadRequest,
    DownloadStatus, PasswordAuth, Proxy, ResourceType,
};
use agent_protocol::{Body, Envelope};
use bedrock::Secret;
use bedrock::net::Network;

use super::HandlerError;
use super::access::StoreAccess;
use super::snapshot_files::SnapshotFiles;

use crate::config::DownloadSettings;
use crate::ingest::describe;
use crate::ingest::digest::Expectation;
use crate::ingest::intake::Content;
use crate::ingest::records::Record;
use crate::ingest::several::Further;
use crate::ingest::{Downloads, Job, Phase, Report, Request};
use crate::live::Live;
use crate::objects::inventory::{self, Description};
use crate::setup::ServerSettings;
use crate::sharing::{Sharing, work_of};
use crate::sources::http::address::AddressPolicy;
use crate::sources::http::trust::Trust;
use crate::sources::http::url::{Credentials, ProxySetting, SourceUrl};
use crate::sources::{
    FileSource, HttpSource, MetalinkSource, NfsSource, Source, SourceError, all_seen,
};
use crate::stores::{FileName, InstallPath, ObjectKind};
use disk_image::{Format, Sizes};
use management_link::AnswerNow;
use role::TaskScope;

/// Handlers of the commands about downloads.
#[derive(Debug, Clone)]
pub struct DownloadCommands {
    pub access: StoreAccess,
    pub downloads: Downloads,
    pub settings: Live<DownloadSettings>,
    pub server: ServerSettings,
    pub trust: Trust,
    /// Runs connections of sources.
    pub tasks: TaskScope,
    pub sharing: Sharing,
}

impl DownloadCommands {
    /// Waits for a small image to be there, unless `answer_now` asks.
    pub async fn start(&self, command: DownloadCommand, answer_now: &AnswerNow) -> DownloadAnswer {
        match self.start_download(&command, answer_now).await {
            Ok(answer) => answer,
            Err(text) => {
                tracing::warn!(id = command.id, error = text, "download refused");
                refusal(&command, None, text)
            }
        }
    }

    /// `Err` is the text for the user.
    async fn start_download(
        &self,
        command: &DownloadCommand,
        answer_now: &AnswerNow,
    ) -> Result<DownloadAnswer, String> {
        let request = self.request(command)?;
        let place = self.downloads.waiting_place();
        let job = self.downloads.start(request).await.map_err(|error| error.to_string())?;
        if let Some(place) = place {
            tokio::select! {
                () = self.downloads.settle(&job, place) => {}
                () = answer_now.asked() => {}
            }
        }
        Ok(answer(&job.id, job.request.kind, job.report()))
    }

    fn request(&self, command: &DownloadCommand) -> Result<Request, String> {
        self.request_with(command, self.server.internal_sites())
    }

    /// `sites` are private networks that the server allows to be reached.
    fn request_with(
        &self,
        command: &DownloadCommand,
        sites: Vec<Network>,
    ) -> Result<Request, String> {
        let kind = match &command.resource_type {
            Some(ResourceType::Template) => ObjectKind::Template,
            Some(ResourceType::Volume) => ObjectKind::Volume,
            Some(ResourceType::Snapshot) => ObjectKind::Snapshot,
            Some(ResourceType::Other(other)) => {
                return Err(format!("{other} is not something to download"));
            }
            None => return Err("the command does not say what to download".to_owned()),
        };
        let url = command.url.as_deref().ok_or("Download url is null")?;
        let name = command.name.as_deref().ok_or("Name for the download is null")?;
        let content = content(kind, command)?;
        let expectation =
            Expectation::parse(command.checksum.as_deref()).map_err(|error| error.to_string())?;
        let directory: InstallPath = command
            .install_path
            .as_deref()
            .unwrap_or_default()
            .parse()
            .map_err(|error: crate::stores::path::PathError| error.to_string())?;
        let is_in_bucket = matches!(command.store, Some(DataStoreTO::S3(_)));
        let object = kind.directory(&directory);
        if object.is_none() || (!is_in_bucket && object.as_ref() != Some(&directory)) {
            return Err(format!("{directory} is not the directory of a {}", kind.name()));
        }
        let SnapshotFiles { directory, urls, names } = match kind {
            ObjectKind::Snapshot => SnapshotFiles::of(url, directory)?,
            ObjectKind::Template | ObjectKind::Volume => SnapshotFiles::none(url, directory),
        };
        if urls.len() > 1 && expectation.is_given() {
            return Err("a checksum is of one file, the snapshot has several".to_owned());
        }
        let source_of = |url: &str| {
            let source = self.source(command, url, &expectation, &sites);
            source.map_err(|error| error.to_string())
        };
        let further = urls.iter().zip(&names).skip(1);
        let more =
            further.map(|(url, name)| Ok(Further { name: name.clone(), source: source_of(url)? }));
        let more = more.collect::<Result<Vec<Further>, String>>()?;
        let source = source_of(urls.first().map_or(url, String::as_str))?;
        let text = |error: HandlerError| bedrock::chain(&error);
        let store =
            self.access.url(command.store.as_ref(), command.sec_url.as_deref()).map_err(text)?;
        let own_name = match content {
            Content::Image(format) if is_in_bucket => Some(name_in_bucket(url, format, name)?),
            _ => None,
        };
        let settings = self.settings.get();
        let limit = command.max_download_size_in_bytes.and_then(|limit| u64::try_from(limit).ok());
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(settings.size_limit);
        Ok(Request {
            kind,
            about: Description {
                id: command.id,
                unique_name: name.to_owned(),
                description: command.description.clone(),
                hvm: command.hvm,
            },
            account: command.account_id,
            content,
            image: names.into_iter().next().or(own_name),
            source,
            more,
            expectation,
            given_checksum: command.checksum.clone(),
            limit,
            decompressed_limit: settings.decompressed_limit.unwrap_or(limit.saturating_mul(4)),
            decompression_ratio: settings.decompression_ratio,
            store,
            directory,
            command: Secret::new(Envelope::of(command).body.get().to_owned()),
            sites,
        })
    }

    fn source(
        &self,
        command: &DownloadCommand,
        url: &str,
        expectation: &Expectation,
        sites: &[Network],
    ) -> Result<Source, SourceError> {
        all_seen(url)?;
        if FileSource::is_meant(url) {
            return Ok(Source::File(FileSource::parse(url, &self.access.stores)?));
        }
        let settings = self.settings.get();
        let networks = settings.allowed_sources.iter().chain(sites).copied();
        let policy = AddressPolicy::new(networks);
        if NfsSource::is_meant(url) {
            let limits = settings.limits.clone();
            let source = NfsSource::parse(url, policy, limits, self.tasks.clone())?;
            return Ok(Source::Nfs(source));
        }
        let http = HttpSource {
            url: SourceUrl::parse(url)?,
            credentials: command.auth.as_ref().and_then(credentials),
            proxy: command.proxy.as_ref().and_then(proxy).or_else(|| settings.proxy.clone()),
            no_proxy: settings.no_proxy.clone(),
            follow_redirects: command.follow_redirects,
            policy,
            limits: settings.limits.clone(),
            trust: self.trust.clone(),
            is_judged: expectation.is_given(),
        };
        Ok(if MetalinkSource::is_meant(&http.url) {
            Source::Metalink(MetalinkSource::new(http))
        } else {
            Source::Http(http)
        })
    }

    /// The request of a recorded command, as if it came again.
    pub fn request_of(&self, record: &Record) -> Result<Request, String> {
        let body = serde_json::value::RawValue::from_string(record.command.reveal().clone())
            .map_err(|error| error.to_string())?;
        let envelope = Envelope { class: DownloadCommand::CLASS.to_owned(), body };
        let command = envelope.open::<DownloadCommand>().map_err(|error| bedrock::chain(&error))?;
        let sites = record.internal_sites.iter().filter_map(|site| site.parse().ok());
        self.request_with(&command, sites.collect())
    }

    /// Takes over the downloads of an earlier run of this process.
    pub async fn restore(&self) {
        let (mut jobs, mut useless) = (Vec::new(), Vec::new());
        for (id, record) in self.downloads.records().await {
            match self.request_of(&record) {
                Ok(request) => jobs.push(Job::restored(id, request, record)),
                Err(error) => {
                    tracing::warn!(job = id, error, "a download of the run before does not go on");
                    useless.push(id);
                }
            }
        }
        if !jobs.is_empty() {
            tracing::info!(count = jobs.len(), "took over the downloads of the run before");
        }
        self.downloads.erase_records(useless);
        self.downloads.restore(jobs);
    }

    pub async fn progress(
        &self,
        command: DownloadProgressCommand,
        answer_now: &AnswerNow,
    ) -> DownloadAnswer {
        let id = command.job_id.clone().unwrap_or_default();
        let job = match &command.request {
            Some(DownloadRequest::Abort) => self.downloads.abort(&id).await,
            Some(DownloadRequest::Purge) => self.downloads.purge(&id).await,
            Some(DownloadRequest::Restart) => match self.downloads.restart(&id).await {
                Some(Ok(job)) => Some(job),
                Some(Err(error)) => {
                    return refusal(&command.download, command.job_id.clone(), error.to_string());
                }
                None => None,
            },
            Some(
                DownloadRequest::GetStatus
                | DownloadRequest::GetOrRestart
                | DownloadRequest::Other(_),
            )
            | None => self.downloads.current(&id),
        };
        match (job, &command.request) {
            // Under the id that was asked for: the server drops an answer with any other.
            (Some(job), request) => {
                answer_to(request.as_ref(), &id, job.request.kind, job.report())
            }
            (None, Some(DownloadRequest::GetOrRestart)) => {
                self.start(command.download, answer_now).await
            }
            (None, _) => self.unknown_job(command).await,
        }
    }

    /// A job that this run of the process does not know. The server may have begun the same download
    /// anew since, and an error would fail that one; or a former run finished it, and the store has
    /// the object. Else the error comes with the job's own id, because the server drops an answer
    /// without it and would wait for a minute.
    async fn unknown_job(&self, command: DownloadProgressCommand) -> DownloadAnswer {
        if let Ok(request) = self.request(&command.download) {
            let kind = request.kind;
            let running = self.downloads.running_at(&request.store, &request.directory);
            let report = match running {
                Some(job) => Some(job.report()),
                None => match self.elsewhere(&request).await {
                    Some(report) => Some(report),
                    None => self.finished_before(request).await,
                },
            };
            if let Some(report) = report {
                let id = command.job_id.as_deref().unwrap_or_default();
                return answer_to(command.request.as_ref(), id, kind, report);
            }
        }
        let text = "the download was lost when the storage host restarted; it begins again when \
                    the server synchronises its templates, or register it again";
        refusal(&command.download, command.job_id, text.to_owned())
    }

    /// How far another host of the zone is with it, if one does it.
    async fn elsewhere(&self, request: &Request) -> Option<Report> {
        let store = self.access.stores.open(&request.store, None).await.ok()?;
        let work = work_of(&request.place()).ok()?;
        let is_elsewhere = self.sharing.is_elsewhere(&store, &work).await.ok()?;
        if !is_elsewhere {
            return None;
        }
        let shown = self.sharing.look(&store, &work).await;
        let percent = shown.map_or(0, |shown| {
            let total = shown.doing.total.unwrap_or(request.limit).max(1);
            u8::try_from((shown.doing.received.saturating_mul(100) / total).min(99)).unwrap_or(99)
        });
        Some(Report {
            phase: Phase::Downloading,
            percent,
            text: "another storage host of the zone downloads it".to_owned(),
            install_path: request.directory.to_string(),
            temporary: None,
            sizes: None,
            checksum: request.given_checksum.clone(),
            warnings: Vec::new(),
            ovf: None,
        })
    }

    async fn finished_before(&self, request: Request) -> Option<Report> {
        let store = self.access.stores.open(&request.store, None).await.ok()?;
        let item = inventory::find(&store, request.kind, &request.directory).await.ok()??;
        let is_it = item.unique_name == request.about.unique_name && !item.is_corrupted;
        let sizes = Sizes {
            virtual_size: u64::try_from(item.virtual_size).ok()?,
            physical_size: u64::try_from(item.physical_size).ok()?,
        };
        let (tasks, directory) = (self.downloads.tasks(), &request.directory);
        let ovf = describe::of_object(tasks, &store, &item, directory).await.ok()?;
        is_it.then(|| Report {
            phase: Phase::Done,
            percent: 100,
            text: "Install completed".to_owned(),
            install_path: item.install_path,
            temporary: None,
            sizes: Some(sizes),
            checksum: request.given_checksum,
            warnings: Vec::new(),
            ovf,
        })
    }
}

/// The last part of a key: the URL's, without what is taken off on the way, and with the ending of what
/// is in it, by which everybody tells the format of an object.
fn name_in_bucket(url: &str, format: Format, unique_name: &str) -> Result<FileName, String> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let decoded = percent_encoding::percent_decode_str(last).decode_utf8_lossy();
    let wrappers = [".gz", ".bz2", ".xz", ".zip", ".zst"];
    let bare = wrappers.iter().find_map(|ending| decoded.strip_suffix(ending));
    let bare = bare.unwrap_or(&decoded);
    let ending = format!(".{}", format.extension());
    let lower = bare.to_ascii_lowercase();
    let is_img = lower.rsplit('.').next() == Some("img");
    let is_named = lower.ends_with(&ending) || (format == Format::Raw && is_img);
    let name = if is_named { bare.to_owned() } else { format!("{bare}{ending}") };
    let name = if bare.is_empty() { format!("{unique_name}{ending}") } else { name };
    name.parse().map_err(|error: crate::stores::path::PathError| error.to_string())
}

/// What the bytes are. Of a snapshot no format is named: its file is kept as it is.
fn content(kind: ObjectKind, command: &DownloadCommand) -> Result<Content, String> {
    if kind == ObjectKind::Snapshot {
        return Ok(Content::Files);
    }
    let format = command.format.as_ref().ok_or("the command names no format")?;
    let known = Format::from_name(format.as_str());
    known.map(Content::Image).map_err(|unknown| format!("images {unknown}"))
}

fn credentials(auth: &PasswordAuth) -> Option<Credentials> {
    let user = auth.user_name.clone()?;
    let password = auth.password.as_ref().map(|text| text.reveal().to_owned()).unwrap_or_default();
    Some(Credentials { user, password: Secret::new(password) })
}

fn proxy(proxy: &Proxy) -> Option<ProxySetting> {
    let credentials = proxy.user_name.as_ref().map(|user| Credentials {
        user: user.clone(),
        password: Secret::new(
            proxy.password.as_ref().map(|text| text.reveal().to_owned()).unwrap_or_default(),
        ),
    });
    let port = u16::try_from(proxy.port).ok();
    proxy
        .host
        .as_deref()
        .filter(|host| !host.is_empty())
        .map(|host| ProxySetting::new(host, port, credentials))
}

/// The answer to a command that starts nothing.
fn refusal(command: &DownloadCommand, job: Option<String>, text: String) -> DownloadAnswer {
    let path =
        command.install_path.as_deref().map(|path| DownloadAnswer::relative(path).to_owned());
    DownloadAnswer {
        job_id: Some(job.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())),
        error_string: Some(text.clone()),
        download_status: Some(DownloadStatus::DownloadError),
        install_path: path,
        check_sum: command.checksum.clone(),
        base: with_details(text),
        ..DownloadAnswer::default()
    }
}

fn with_details(text: String) -> AnswerBase {
    // The result is true even for a failed download: the state says it.
    AnswerBase { result: true, details: Some(text), command: CommandBase::default() }
}

/// The server takes what an OVA describes from the answer to its last question only.
fn answer_to(
    request: Option<&DownloadRequest>,
    job: &str,
    kind: ObjectKind,
    report: Report,
) -> DownloadAnswer {
    let is_last = request == Some(&DownloadRequest::Purge);
    let ovf_information = report.ovf.as_deref().filter(|_ovf| is_last).cloned();
    DownloadAnswer { ovf_information, ..answer(job, kind, report) }
}

/// The state of a job in the server's words. A virtual size is the size of an image: files of a
/// snapshot have none, and the server keeps 0 for the one it knows itself.
fn answer(job: &str, kind: ObjectKind, report: Report) -> DownloadAnswer {
    let status = match report.phase {
        Phase::Waiting | Phase::Aborted => DownloadStatus::NotDownloaded,
        Phase::Downloading | Phase::Installing | Phase::Suspended => {
            DownloadStatus::DownloadInProgress
        }
        Phase::Done => DownloadStatus::Downloaded,
        Phase::Failed => DownloadStatus::DownloadError,
    };
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let image = report.sizes.filter(|_sizes| kind != ObjectKind::Snapshot);
    DownloadAnswer {
        job_id: Some(job.to_owned()),
        download_pct: i32::from(report.percent),
        error_string: Some(report.text.clone()),
        download_status: Some(status),
        download_path: report.temporary,
        install_path: Some(report.install_path),
        template_size: image.map_or(0, |sizes| size(sizes.virtual_size)),
        template_physical_size: report.sizes.map_or(0, |sizes| size(sizes.physical_size)),
        check_sum: report.checksum,
        ovf_information: None,
        base: with_details(report.text),
    }
}
