//! The configuration as a whole, with roles made for the test.

use std::io::Write;

use role::{BoxFuture, Host, PreflightError, Resource, Role, RoleContext, RoleError, RoleKind};

use super::*;

#[derive(Debug)]
struct Nothing(RoleKind);

impl RoleSpec for Nothing {
    fn kind(&self) -> RoleKind {
        self.0
    }

    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }

    fn preflight<'a>(&'a self, _: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        Box::pin(async { Vec::new() })
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(Self(self.0))
    }
}

impl Role for Nothing {
    fn run(self: Box<Self>, _: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        Box::pin(async { Ok(()) })
    }
}

const ALPHA: RoleKind = RoleKind { short: "a", title: "first", section: "alpha" };
const BETA: RoleKind = RoleKind { short: "b", title: "second", section: "beta" };

fn alpha(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Arc<dyn RoleSpec>> {
    let mut management = Section::new("management", input.management, violations);
    management.or_default("port", 8250_u16, "give a port");
    management.finish();
    let mut section = Section::new("roles.alpha", input.section, violations);
    let name: Option<String> = section.required("name", "give a name");
    section.secret("password");
    section.finish();
    name.map(|_| Arc::new(Nothing(ALPHA)) as Arc<dyn RoleSpec>)
}

fn beta(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Arc<dyn RoleSpec>> {
    Section::new("roles.beta", input.section, violations).finish();
    Some(Arc::new(Nothing(BETA)))
}

const REGISTRY: &[RoleDescriptor] = &[
    RoleDescriptor::new(ALPHA, alpha).reloading(&["roles.alpha.name"]),
    RoleDescriptor::new(BETA, beta),
];

fn sources(set: &[&str]) -> Sources {
    Sources { set: set.iter().map(|text| (*text).to_owned()).collect(), ..Sources::default() }
}

fn load_text(text: &str, sources: Sources) -> Result<Loaded, LoadError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    load(&Sources { file: Some(file.path().to_owned()), ..sources }, REGISTRY)
}

fn violations(text: &str, set: &[&str]) -> Vec<String> {
    let loaded = load_text(text, Sources { roles: Some("a,b".into()), ..sources(set) }).unwrap();
    assert_eq!(loaded.config.is_none(), !loaded.violations.is_empty());
    loaded.violations.iter().map(ToString::to_string).collect()
}

#[test]
fn everything_wrong_is_told_at_once_with_place_and_remedy() {
    let found = violations(
        "typo = 1\nlog = 3\n[supervisor]\nadmin_adress = 'x'\nshutdown_grace = 30\n\
         restart_limit = 0\nstate_directory = 'relative'\n\
         [management]\nport = 99999\n[roles.alpha]\nnam = 'x'\n[roles.betta]\n",
        &["supervisor.admin_address=0.0.0.0:8251", "roles.beta.x=1"],
    );
    let expected = [
        "typo: is not a known key; known keys: supervisor, log, management, roles",
        "log: 3 is not a table; write a table: [log]",
        "roles.betta: is not a known key; did you mean \"beta\"?",
        "supervisor.admin_address: 0.0.0.0:8251 can be reached from other machines, and it asks for \
         no password; use 127.0.0.1, or set supervisor.admin_allow_remote = true behind a firewall",
        "supervisor.shutdown_grace: 30 is not a duration; give a number with a unit: \"500ms\", \
         \"30s\", \"5m\", \"2h\"",
        "supervisor.restart_limit: 0 gives a role up before it fails; give 1 or more",
        "supervisor.state_directory: \"relative\" is relative; give an absolute path",
        "supervisor.admin_adress: is not a known key; did you mean \"admin_address\"?",
        "management.port: \"99999\" is not valid: number too large to fit in target type; give a port",
        "roles.alpha.name: is missing; give a name",
        "roles.alpha.nam: is not a known key; did you mean \"name\"?",
        "roles.beta.x: is not a known key; known keys: ",
    ];
    assert_eq!(found, expected);
}

#[test]
fn no_file_is_needed() {
    let set = ["roles.alpha.name=n", "supervisor.shutdown_grace=5s", "log.format=json"];
    let loaded = load(&Sources { roles: Some("a".into()), ..sources(&set) }, REGISTRY).unwrap();
    let config = loaded.config.unwrap();
    assert_eq!(config.supervisor.shutdown_grace, Duration::from_secs(5));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.roles.len(), 1);
    let unset = SupervisorConfig { shutdown_grace: Duration::from_secs(5), ..Default::default() };
    assert_eq!(config.supervisor, unset);
}

fn chosen(text: &str, roles: Option<&str>) -> Result<Vec<&'static str>, String> {
    let sources = Sources { roles: roles.map(str::to_owned), ..sources(&["roles.alpha.name=n"]) };
    let loaded = load_text(text, sources).map_err(|error| error.to_string())?;
    match loaded.config {
        Some(config) => Ok(config.specs().iter().map(|spec| spec.kind().short).collect()),
        None => Err(loaded.violations.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn roles_come_from_the_command_line_or_else_from_the_file() {
    let listed = "supervisor.roles = ['b']";
    assert_eq!(chosen(listed, None), Ok(vec!["b"]));
    assert_eq!(chosen(listed, Some("a")), Ok(vec!["a"]));
    assert_eq!(chosen("supervisor.roles = 'b'", None), Ok(vec!["b"]));
    let unknown = "there is no role \"c\"; known roles: a (first), b (second)";
    assert_eq!(chosen(listed, Some("c")), Err(unknown.to_owned()));
    let place = format!("supervisor.roles: {unknown}; list known roles only");
    assert_eq!(chosen("supervisor.roles = ['c']", None), Err(place));
    for nothing in ["", "supervisor.roles = []"] {
        assert_eq!(
            chosen(nothing, None),
            Err("supervisor.roles: no role is chosen; give --roles a,b or supervisor.roles = \
                 [\"a\", \"b\"]"
                .to_owned())
        );
    }
}

#[test]
fn tables_of_other_roles_are_not_read_but_named() {
    let text = "[roles.alpha]\nanything = 1\n[management]\nanything = 1";
    let loaded = load_text(text, Sources { roles: Some("b".into()), ..sources(&[]) }).unwrap();
    assert!(loaded.config.is_some(), "{:?}", loaded.violations);
    assert_eq!(loaded.unread, ["roles.alpha"]);
}

#[test]
fn a_syntax_error_names_file_line_and_column() {
    let error = load_text("[supervisor]\nshutdown_grace = = 3\n", sources(&[])).unwrap_err();
    let LoadError::Syntax { path, line, column, problem } = &error else { panic!("{error}") };
    assert_eq!((*line, *column), (2, 18), "{problem}");
    assert!(error.to_string().starts_with(&format!("{}:2:18: ", path.display())), "{error}");
    let error = load_text("a = 1\na = 2\n", sources(&[])).unwrap_err();
    assert!(error.to_string().contains(":2:1: duplicate key"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let file = Some("/does/not/exist.toml".into());
    let error = load(&Sources { file, ..Sources::default() }, REGISTRY).unwrap_err();
    assert_eq!(
        bedrock::chain(&error),
        "cannot read /does/not/exist.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn log_filters_are_validated_wherever_they_come_from() {
    let found = violations("roles.alpha.name = 'n'\nlog.filter = 'a=b=c'", &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("log.filter: \"a=b=c\" is not valid: "), "{found:?}");
    let sources =
        Sources { roles: Some("b".into()), log_filter: Some("info,=x".into()), ..sources(&[]) };
    let loaded = load_text("", sources).unwrap();
    assert_eq!(loaded.violations[0].place, "--log");
}

#[test]
fn the_printed_configuration_parses_back_and_hides_secrets() {
    let set = ["roles.alpha.name=n", "roles.alpha.password=hunter2", "management.port=9"];
    let load_with = |text: &str, set: &[&str]| {
        load_text(text, Sources { roles: Some("a".into()), ..sources(set) }).unwrap()
    };
    let first = load_with("", &set);
    let printed = effective::to_toml(&first.effective);
    assert!(printed.contains("password = \"***\""), "{printed}");
    assert!(!printed.contains("hunter2"));
    let again = load_with(&printed, &[]);
    assert_eq!(again.violations, []);
    assert_eq!(effective::to_toml(&again.effective), printed);
    assert_eq!(again.config.unwrap().supervisor, first.config.unwrap().supervisor);
}
