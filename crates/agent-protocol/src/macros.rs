//! The macros that declare typed bodies; see [`crate::members`] for what they implement.
//!
//! A class is declared once, as a list of wire name, field and type in wire order. Everything that
//! has to agree with that list (reading, writing, class name, command sets) is made from it.

/// Visitor methods that refuse a kind of JSON value without repeating the value.
macro_rules! refuse {
    ($wanted:literal: $($kind:ident)*) => {
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str($wanted)
        }
        $(refuse!(@ $wanted $kind);)*
    };
    (@ $wanted:literal bool) => {
        fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Self::Value, E> {
            Err(E::custom(concat!("a flag where ", $wanted, " is expected")))
        }
    };
    (@ $wanted:literal number) => {
        fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Self::Value, E> {
            Err(E::custom(concat!("a number where ", $wanted, " is expected")))
        }
        fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Self::Value, E> {
            Err(E::custom(concat!("a number where ", $wanted, " is expected")))
        }
        fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
            Err(E::custom(concat!("a number where ", $wanted, " is expected")))
        }
    };
    (@ $wanted:literal text) => {
        fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Self::Value, E> {
            Err(E::custom(concat!("a text where ", $wanted, " is expected")))
        }
    };
    (@ $wanted:literal list) => {
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(serde::de::Error::custom(concat!("a list where ", $wanted, " is expected")))
        }
    };
    (@ $wanted:literal object) => {
        fn visit_map<A: serde::de::MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(serde::de::Error::custom(concat!("an object where ", $wanted, " is expected")))
        }
    };
    (@ $wanted:literal null) => {
        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    };
}

/// Declares the struct of one class: `"wire name" field: Type`, in declaration order, then the
/// class it extends. With a class name the struct is a [`Body`](crate::Body).
macro_rules! java {
    (
        $(#[$meta:meta])*
        $name:ident $(= $class:literal)? {
            $($(#[$field_meta:meta])* $wire:literal $field:ident: $type:ty,)*
        }
        $(extends $(#[$base_meta:meta])* $base:ident: $base_type:ty)?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            $(
                #[doc = concat!("The fields of the class this one extends: [`", stringify!($base_type), "`].")]
                $(#[$base_meta])*
                pub $base: $base_type,
            )?
        }
        java!(@impl $name { $($wire $field,)* } $($base)?);
        $(impl crate::Body for $name {
            const CLASS: &'static str = $class;
        })?
    };
    (@inherited $self:ident, $key:ident, $map:ident, $base:ident) => {
        crate::members::Members::read_member(&mut $self.$base, $key, $map)
    };
    (@inherited $self:ident, $key:ident, $map:ident) => {
        Ok(false)
    };
    (@impl $name:ident { $($wire:literal $field:ident,)* } $($base:ident)?) => {
        impl crate::members::Members for $name {
            fn read_member<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
            ) -> Result<bool, A::Error> {
                match key {
                    $($wire => {
                        crate::members::Member::read(&mut self.$field, map)?;
                        Ok(true)
                    })*
                    _ => java!(@inherited self, key, map $(, $base)?),
                }
            }

            fn write_members<M: serde::ser::SerializeMap>(
                &self,
                map: &mut M,
            ) -> Result<(), M::Error> {
                $(crate::members::Member::write(&self.$field, $wire, map)?;)*
                $(crate::members::Members::write_members(&self.$base, map)?;)?
                Ok(())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                crate::members::write_object(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::members::read_object(deserializer)
            }
        }

        impl crate::members::Element for $name {
            fn decode<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Option<Self>, D::Error> {
                deserializer.deserialize_any(crate::members::ObjectVisitor(std::marker::PhantomData))
            }

            fn encode<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                crate::members::write_object(self, serializer)
            }
        }
    };
}

/// Declares an enum of constants; a constant of a later release is kept as `Other`.
macro_rules! constants {
    ($(#[$meta:meta])* $name:ident { $($(#[$item_meta:meta])* $item:ident = $wire:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $wire, "`")] $(#[$item_meta])* $item,)*
            /// A constant this list does not hold.
            Other(String),
        }

        impl $name {
            /// Every constant of the list.
            pub const ALL: &'static [$name] = &[$($name::$item,)*];

            /// The name on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $($name::$item => $wire,)*
                    $name::Other(name) => name,
                }
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> $name {
                match name {
                    $($wire => $name::$item,)*
                    other => $name::Other(other.to_owned()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl crate::members::Element for $name {
            fn decode<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Option<Self>, D::Error> {
                let name = <String as crate::members::Element>::decode(deserializer)?;
                Ok(name.map(|name| $name::from(name.as_str())))
            }

            fn encode<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

/// Declares which bodies are commands, what answers them, whether they run in sequence and, where
/// the failed answer repeats something of the command, the function that makes it.
macro_rules! commands {
    ($($name:ident $(.$base:ident)+ => $answer:ty, $in_sequence:literal $(, $failed:path)?;)*) => {
        $(impl crate::Command for $name {
            type Answer = $answer;
            const IN_SEQUENCE: bool = $in_sequence;

            fn command_base(&self) -> &crate::base::CommandBase {
                &self$(.$base)+
            }

            $(fn failed_answer(&self, details: &str) -> crate::Envelope {
                $failed(self, details)
            })?
        })*
    };
}

/// Declares which bodies are answers.
macro_rules! answers {
    ($($name:ident),* $(,)?) => {
        $(impl crate::Answer for $name {
            #[allow(clippy::needless_update, reason = "some answers have no field of their own")]
            fn failed(details: String) -> $name {
                $name { base: crate::base::AnswerBase::failed(details), ..Default::default() }
            }

            fn answer_base(&self) -> &crate::base::AnswerBase {
                &self.base
            }
        })*
    };
}

/// Declares a closed set of commands, decoded from an envelope by its class.
macro_rules! command_set {
    ($(#[$meta:meta])* $name:ident { $($item:ident($type:ty),)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $(#[doc = concat!("[`", stringify!($type), "`]")] $item(Box<$type>),)*
            /// A class outside of this set.
            Unknown(crate::Envelope),
        }

        impl $name {
            /// Every class of the set.
            pub const CLASSES: &'static [&'static str] = &[$(<$type as crate::Body>::CLASS,)*];

            /// Opens the envelope when its class is in the set.
            ///
            /// # Errors
            /// [`BodyError::Field`](crate::BodyError::Field) when a field does not fit.
            pub fn decode(envelope: crate::Envelope) -> Result<$name, crate::BodyError> {
                Ok($name::open(&envelope)?.unwrap_or($name::Unknown(envelope)))
            }

            /// The same on a borrowed envelope, which an error leaves to be answered; `None` when
            /// its class is not in the set.
            ///
            /// # Errors
            /// As for [`decode`](Self::decode).
            pub fn open(envelope: &crate::Envelope) -> Result<Option<$name>, crate::BodyError> {
                match envelope.class.as_str() {
                    $(<$type as crate::Body>::CLASS => {
                        envelope.open::<$type>().map(|body| Some($name::$item(Box::new(body))))
                    })*
                    _ => Ok(None),
                }
            }

            /// Full class name of the command.
            pub fn class(&self) -> &str {
                match self {
                    $($name::$item(_) => <$type as crate::Body>::CLASS,)*
                    $name::Unknown(envelope) => &envelope.class,
                }
            }

            /// The answer that says no to this command; see [`failed_answer`](crate::failed_answer).
            pub fn failed_answer(&self, details: &str) -> crate::Envelope {
                match self {
                    $($name::$item(body) => crate::Command::failed_answer(body.as_ref(), details),)*
                    $name::Unknown(envelope) => crate::agent::unsupported(envelope),
                }
            }

            /// The same for a command that may be unreadable; `None` for a class outside of the set.
            pub(crate) fn failed_answer_of_class(
                command: &crate::Envelope,
                details: &str,
            ) -> Option<crate::Envelope> {
                match command.class.as_str() {
                    $(<$type as crate::Body>::CLASS => {
                        let command = command.open_readable::<$type>();
                        Some(crate::Command::failed_answer(&command, details))
                    })*
                    _ => None,
                }
            }

            /// The envelope again.
            pub fn envelope(&self) -> crate::Envelope {
                match self {
                    $($name::$item(body) => crate::Envelope::of(body.as_ref()),)*
                    $name::Unknown(envelope) => envelope.clone(),
                }
            }
        }
    };
}

/// Declares the implementations of an interface: written as `{class: {fields}}`, read by class.
macro_rules! interface {
    ($(#[$meta:meta])* $name:ident { $($item:ident($type:ty) = $class:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $(#[doc = concat!("[`", stringify!($type), "`]")] $item(Box<$type>),)*
            /// A class that is not modelled.
            Unknown {
                /// Full class name.
                class: String,
                /// The fields as they came.
                body: crate::gson::RawObject,
            },
        }

        impl $name {
            /// Every class that is modelled.
            pub const CLASSES: &'static [&'static str] = &[$($class,)*];

            /// The full class name.
            pub fn class(&self) -> &str {
                match self {
                    $($name::$item(_) => $class,)*
                    $name::Unknown { class, .. } => class,
                }
            }
        }

        $(impl From<$type> for $name {
            fn from(object: $type) -> $name {
                $name::$item(Box::new(object))
            }
        })*

        impl crate::members::Element for $name {
            fn decode<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Option<Self>, D::Error> {
                deserializer.deserialize_any(crate::members::InterfaceVisitor(
                    std::marker::PhantomData,
                ))
            }

            fn encode<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $($name::$item(body) => {
                        serializer.collect_map([($class, crate::members::Wire(body.as_ref()))])
                    })*
                    $name::Unknown { class, body } => {
                        serializer.collect_map([(class, crate::members::Wire(body))])
                    }
                }
            }
        }

        impl crate::members::Interface for $name {
            fn read_class<'de, A: serde::de::MapAccess<'de>>(
                class: &str,
                map: &mut A,
            ) -> Result<Option<Self>, A::Error> {
                match class {
                    $($class => {
                        let crate::members::Lenient(body) = map.next_value::<_>()?;
                        Ok(body.map(|body: $type| $name::$item(Box::new(body))))
                    })*
                    other => {
                        let crate::members::Lenient(body) = map.next_value::<_>()?;
                        Ok(body.map(|body| $name::Unknown { class: other.to_owned(), body }))
                    }
                }
            }
        }
    };
}
