//! The operator's certificate files, read again when they change: certbot and the like replace them
//! and tell nobody.

use std::sync::Arc;
use std::time::Duration;

use bedrock::files::mark;
use role::{HealthReporter, TaskScope};
use tls_material::read_pair;

use super::{BrowserCertificate, Source};
use crate::config::CertificateFiles;

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(2);
const CONDITION: &str = "certificate";

/// Reads the files into force; on an error what is served stays. Blocks.
pub(crate) fn read_files(
    files: &CertificateFiles,
    certificate: &BrowserCertificate,
) -> Result<(), String> {
    let pair = read_pair(&files.certificate, &files.key).map_err(|e| bedrock::chain(&e))?;
    certificate.offer(Source::Files, Some(pair)).map_err(|error| bedrock::chain(&error))
}

/// Follows the files until the role ends.
pub(crate) async fn keep_files(
    files: CertificateFiles,
    certificate: Arc<BrowserCertificate>,
    tasks: TaskScope,
    health: HealthReporter,
) {
    let mut seen = None;
    loop {
        let look = {
            let (files, certificate) = (files.clone(), Arc::clone(&certificate));
            move || {
                let marks = (mark(&files.certificate), mark(&files.key));
                // Half-written files are read once more when they are whole.
                let outcome = (seen != Some(marks)).then(|| read_files(&files, &certificate));
                (marks, outcome)
            }
        };
        match tasks.blocking("certificate files", look).await {
            Ok((marks, outcome)) => {
                seen = Some(marks);
                match outcome {
                    Some(Ok(())) => health.clear_condition(CONDITION),
                    Some(Err(error)) => {
                        tracing::error!(error, "the certificate in force stays");
                        health.set_condition(CONDITION, error);
                    }
                    None => {}
                }
            }
            Err(error) => tracing::debug!(%error, "cannot look at the certificate's files"),
        }
        tokio::time::sleep(LOOK).await;
    }
}
