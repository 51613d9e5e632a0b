//! Bodies for secondary storage, and the objects they carry.

java! {
    /// One template or volume in a list.
    TemplateProp {
        "templateName" template_name: Option<String>,
        /// Below the root of the store.
        "installPath" install_path: Option<String>,
        /// Virtual bytes.
        "size" size: i64,
        /// Bytes on disk.
        "physicalSize" physical_size: i64,
        "id" id: i64,
        "isPublic" is_public: bool,
        "isCorrupted" is_corrupted: bool,
    }
}
