//! An embedded server on a fixed address, to try agents against by hand: prints its address, where
//! its certificate lies, and every event. `serve ADDRESS CA-FILE [rows]`.
#![allow(clippy::print_stdout, reason = "a tool for the hand that talks on its standard output")]

use std::path::Path;

use management_server::{
    HostKind, ImageKind, ImageStore, ManagementServer, NewImage, ServerConfig, SystemVm, Vm,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:8250".to_owned());
    let ca_file = arguments.next().unwrap_or_else(|| "ca.pem".to_owned());
    let rows = arguments.next().as_deref() == Some("rows");

    let mut config = ServerConfig::new(listen.parse()?);
    config.ping_interval = std::time::Duration::from_secs(10);
    if rows {
        config.stores =
            vec![ImageStore { url: "nfs://127.0.0.1/export/sec".to_owned(), writable: true }];
        let vm = |kind, id, name: &str| SystemVm {
            kind,
            id,
            name: name.to_owned(),
            public_address: "127.0.0.1".to_owned(),
        };
        config.system_vms = vec![
            vm(HostKind::SecondaryStorage, 900, "s-900-VM"),
            vm(HostKind::ConsoleProxy, 901, "v-901-VM"),
        ];
    }
    let server = ManagementServer::start(config).await?;
    std::fs::write(Path::new(&ca_file), server.ca_pem())?;
    println!("listening on {}, certificate in {ca_file}", server.address());
    if rows {
        let uuid = "8a112b6e-0e48-419d-af9b-31a68db815c0";
        server.put_vm(Vm {
            id: 1,
            uuid: uuid.to_owned(),
            name: "vm1".to_owned(),
            host_address: "127.0.0.1".to_owned(),
            port: 5901,
            vnc_password: "secret".into(),
            keyboard: None,
            windows: false,
            running: true,
        });
        let link = server.console_link(uuid, [127, 0, 0, 1].into(), None).await?;
        println!("console {}", link.url);
        let image = server.register_template(NewImage {
            kind: ImageKind::Template,
            name: "tiny".to_owned(),
            url: "http://127.0.0.1:8000/tiny.qcow2".to_owned(),
            format: "QCOW2".into(),
            hvm: true,
            checksum: None,
        })?;
        println!("template {image}");
    }
    let mut events = server.events();
    loop {
        tokio::select! {
            Some(event) = events.next() => println!("{event:?}"),
            signal = tokio::signal::ctrl_c() => {
                signal?;
                server.shutdown().await;
                return Ok(());
            }
        }
    }
}
