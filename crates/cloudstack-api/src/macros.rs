//! Objects and commands as tables: a field, its type, its name on the wire.

/// An object of an answer, read field by field. `T` must be there, `Option<T>` may, `Vec<T>` is
/// repeated.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty = $wire:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind),* }

        impl $crate::xml::Object for $name {
            fn read(element: $crate::xml::Element<'_, '_>) -> Result<Self, $crate::xml::ReadError> {
                Ok(Self { $($field: element.field($wire)?),* })
            }
        }
    };
}

/// A command: its parameters, and where its answer is.
///
/// `in "zone"` after the answer's type: the answer is that child of the root. `list "zone"`: it is
/// the list of those children, page by page. `job`: the answer names a job whose result is the
/// object of that name, or, on some releases, holds that object at once. `root`: the answer is read from the root itself.
macro_rules! command {
    ($(#[$doc:meta])* $name:ident = $wire:literal => $how:tt $answer:ty $(, $at:literal)?;
     { $($(#[$field_doc:meta])* $field:ident: $kind:ty = $parameter:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind),* }

        impl $crate::commands::Command for $name {
            const NAME: &'static str = $wire;
            type Answer = command!(@answer $how $answer);

            #[allow(unused_variables, reason = "a command may have no parameter")]
            fn parameters(&self, parameters: &mut $crate::sign::Parameters) {
                $($crate::sign::Parameter::put(&self.$field, $parameter, parameters);)*
            }

            fn read(root: $crate::xml::Element<'_, '_>) -> Result<Self::Answer, $crate::xml::ReadError> {
                command!(@read root, $how $answer $(, $at)?)
            }
        }

        command!(@extra $name, $how $answer $(, $at)?);
    };
    (@answer list $answer:ty) => { $crate::paging::Page<$answer> };
    (@answer job $answer:ty) => { $crate::job::Started<$answer> };
    (@answer in $answer:ty) => { $answer };
    (@answer root $answer:ty) => { $answer };
    (@read $root:ident, list $answer:ty, $at:literal) => { $crate::paging::Page::read($root, $at) };
    (@read $root:ident, job $answer:ty, $at:literal) => { $crate::job::Started::read($root, $at) };
    (@read $root:ident, in $answer:ty, $at:literal) => { $crate::commands::only($root, $at) };
    (@read $root:ident, root $answer:ty) => { <$answer as $crate::xml::Object>::read($root) };
    (@extra $name:ident, list $answer:ty, $at:literal) => {
        impl $crate::commands::ListCommand for $name { type Item = $answer; }
    };
    (@extra $name:ident, job $answer:ty, $at:literal) => {
        impl $crate::commands::AsyncCommand for $name {
            type Outcome = $answer;
            const OUTCOME: &'static str = $at;
        }
    };
    (@extra $name:ident, in $answer:ty, $at:literal) => {};
    (@extra $name:ident, root $answer:ty) => {};
}

pub(crate) use {command, object};
