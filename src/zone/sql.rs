//! Statements for the server's database (MariaDB or MySQL, schema `cloud`): what no call of the API
//! can change. Each block is a transaction that changes nothing when it does not fit, and has a
//! second one that takes it back. Values are numbers, ids and addresses by their types.

use std::net::IpAddr;

use uuid::Uuid;

/// A statement and what takes it back.
pub(super) type Pair = (String, String);

/// Which of the two kinds of row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row {
    Storage,
    Console,
}

impl Row {
    const fn table(self) -> &'static str {
        match self {
            Self::Storage => "secondary_storage_vm",
            Self::Console => "console_proxy",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Storage => "SecondaryStorageVm",
            Self::Console => "ConsoleProxy",
        }
    }

    const fn offering(self) -> &'static str {
        match self {
            Self::Storage => "secondarystoragevm",
            Self::Console => "consoleproxy",
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Storage => 's',
            Self::Console => 'v',
        }
    }

    /// A storage is found in any state, a console proxy only Running.
    const fn state(self) -> &'static str {
        match self {
            Self::Storage => "Stopped",
            Self::Console => "Running",
        }
    }
}

/// The address that links name.
pub(super) fn address(row: Row, id: u64, old: Option<IpAddr>, new: IpAddr) -> Pair {
    let table = row.table();
    let set = |value: String| {
        format!("UPDATE {table} SET public_ip_address = {value} WHERE id = {id};\n")
    };
    (set(format!("'{new}'")), set(old.map_or_else(|| "NULL".to_owned(), |old| format!("'{old}'"))))
}

/// The stopped row of a console proxy as one that is Running without a machine.
pub(super) fn run_row(id: u64) -> Pair {
    let change = |from: &str, to: &str| {
        format!(
            "UPDATE vm_instance SET state = '{to}', power_state = 'PowerUnknown', \
             update_time = NOW()\n  WHERE id = {id} AND type = 'ConsoleProxy' AND state = '{from}' \
             AND host_id IS NULL AND removed IS NULL;\n"
        )
    };
    (change("Stopped", "Running"), change("Running", "Stopped"))
}

/// New rows of a system VM that never was.
pub(super) fn insert(row: Row, zone: Uuid, instance: &str, address: IpAddr) -> Pair {
    let (table, kind, offering) = (row.table(), row.kind(), row.offering());
    let (letter, state) = (row.letter(), row.state());
    let (column, value) = match row {
        Row::Storage => (", role", ", 'templateProcessor'"),
        Row::Console => ("", ""),
    };
    let insert = format!(
        "START TRANSACTION;\n\
         SELECT id INTO @zone FROM data_center WHERE uuid = '{zone}' AND removed IS NULL;\n\
         SELECT MIN(id) INTO @pod FROM host_pod_ref WHERE data_center_id = @zone AND removed IS NULL;\n\
         SELECT MIN(id) INTO @offering FROM service_offering WHERE vm_type = '{offering}';\n\
         SELECT MIN(id) INTO @os FROM guest_os WHERE removed IS NULL;\n\
         SELECT value INTO @id FROM sequence WHERE name = 'vm_instance_seq' FOR UPDATE;\n\
         UPDATE sequence SET value = value + 1 WHERE name = 'vm_instance_seq';\n\
         INSERT INTO vm_instance (id, name, instance_name, uuid, state, guest_os_id,\n    \
         data_center_id, pod_id, vnc_password, created, type, vm_type, account_id, domain_id,\n    \
         user_id, service_offering_id, hypervisor_type, vm_template_id, host_id, power_state,\n    \
         display_vm)\n  \
         VALUES (@id, CONCAT('{letter}-', @id, '-{instance}'), CONCAT('{letter}-', @id, '-{instance}'),\n    \
         UUID(), '{state}', @os, @zone, @pod, '', NOW(), '{kind}', '{kind}', 1, 1,\n    \
         1, @offering, 'KVM', NULL, NULL, 'PowerUnknown', 1);\n\
         INSERT INTO {table} (id, public_ip_address{column}) VALUES (@id, '{address}'{value});\n\
         COMMIT;\n\
         SELECT @id;\n"
    );
    (insert, "-- quickcloud zone disable prints the statements with the row's number\n".to_owned())
}

/// Rows made by [`insert`] are gone for the server.
pub(super) fn remove(row: Row, id: u64) -> String {
    let (table, kind) = (row.table(), row.kind());
    format!(
        "START TRANSACTION;\n\
         UPDATE vm_instance SET state = 'Expunging', removed = NOW()\n  \
         WHERE id = {id} AND type = '{kind}' AND host_id IS NULL AND vm_template_id IS NULL;\n\
         DELETE FROM {table} WHERE id = {id}\n  \
         AND id IN (SELECT id FROM vm_instance WHERE removed IS NOT NULL);\n\
         COMMIT;\n"
    )
}

/// Settings of the static console proxy, which the server reads when it starts.
pub(super) fn static_console(address: IpAddr, port: u16) -> Pair {
    let rows = [
        ("consoleproxy.static.publicIp", address.to_string()),
        ("consoleproxy.static.port", port.to_string()),
        ("consoleproxy.port", port.to_string()),
    ];
    let insert = |(name, value): (&str, String)| {
        format!(
            "INSERT INTO configuration (category, instance, component, name, value)\n  \
             VALUES ('Advanced', 'DEFAULT', 'QuickCloud', '{name}', '{value}')\n  \
             ON DUPLICATE KEY UPDATE value = '{value}';\n"
        )
    };
    let undo = "DELETE FROM configuration WHERE component = 'QuickCloud'\n  AND name IN \
                ('consoleproxy.static.publicIp', 'consoleproxy.static.port', 'consoleproxy.port');\n";
    (rows.map(insert).concat(), undo.to_owned())
}

/// What a storage without a row has to be told by hand.
pub(super) const HIDDEN_SETTINGS: &str = "\
SELECT name, value FROM configuration
  WHERE name IN ('upload.post.secret.key', 'secstorage.copy.password');
";
