//! How typed bodies are read and written: field by field, in declaration order, leniently.
//!
//! Derived deserialisers refuse what the peer accepts (numbers in quotes, repeated keys, null for
//! a number) and print the offending value in their errors. The macro [`java!`] therefore writes
//! a struct together with its [`Members`]: own fields first, then those of the class it extends.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use indexmap::IndexMap;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use bedrock::Secret;

use crate::text::UrlText;

/// Separates the path of a faulty field from the reason inside an error text.
pub(crate) const LOCATION_MARK: char = '\u{0}';

/// A class: named fields in wire order.
pub(crate) trait Members: Default {
    /// Reads the value of `key`; false when the class has no such field.
    fn read_member<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
    ) -> Result<bool, A::Error>;

    /// Writes every field that is not absent.
    fn write_members<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
}

/// A field: a value that is always written, or an `Option` that is left out when `None`.
pub(crate) trait Member {
    fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error>;
    fn write<M: SerializeMap>(&self, key: &'static str, map: &mut M) -> Result<(), M::Error>;
}

/// A value inside a field, a list or a dictionary.
pub(crate) trait Element: Sized {
    /// `None` for null.
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error>;

    /// Writes the value. Secrets have this and not [`Serialize`]: only a body reveals them.
    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// Bridges [`Element::encode`] to serde.
pub(crate) struct Wire<'a, T>(pub(crate) &'a T);

impl<T: Element> Serialize for Wire<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.encode(serializer)
    }
}

/// Bridges [`Element`] to serde.
pub(crate) struct Lenient<T>(pub(crate) Option<T>);

impl<'de, T: Element> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lenient<T>, D::Error> {
        T::decode(deserializer).map(Lenient)
    }
}

impl<T: Element> Member for T {
    fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        if let Lenient(Some(value)) = map.next_value()? {
            *self = value;
        }
        Ok(())
    }

    fn write<M: SerializeMap>(&self, key: &'static str, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry(key, &Wire(self))
    }
}

impl<T: Element> Member for Option<T> {
    fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        let Lenient(value) = map.next_value()?;
        *self = value;
        Ok(())
    }

    fn write<M: SerializeMap>(&self, key: &'static str, map: &mut M) -> Result<(), M::Error> {
        match self {
            Some(value) => map.serialize_entry(key, &Wire(value)),
            None => Ok(()),
        }
    }
}

/// An object key, borrowed from the input where it holds no escape.
pub(crate) struct Key<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key<'de>, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Puts one more key in front of the path of a faulty field.
pub(crate) fn located<E: de::Error>(key: impl fmt::Display, error: E) -> E {
    let text = error.to_string();
    match text.split_once(LOCATION_MARK) {
        Some((path, reason)) => E::custom(format_args!("{key}.{path}{LOCATION_MARK}{reason}")),
        None => E::custom(format_args!("{key}{LOCATION_MARK}{text}")),
    }
}

struct NumberVisitor;

/// The largest whole number a float holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Option<i64>;

    refuse!("a whole number": bool list object null);

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<i64>, E> {
        Ok(Some(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<i64>, E> {
        i64::try_from(number).map(Some).map_err(|_| E::custom("a number beyond 64 bits"))
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^53: exact")]
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Option<i64>, E> {
        if number.fract() == 0.0 && number.abs() <= EXACT {
            return Ok(Some(number as i64));
        }
        Err(E::custom("a number that is not whole"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<i64>, E> {
        if let Ok(number) = text.trim().parse::<i64>() {
            return Ok(Some(number));
        }
        match text.trim().parse::<f64>() {
            Ok(number) => self.visit_f64(number),
            Err(_) => Err(E::custom("a text that is not a number")),
        }
    }
}

impl Element for i64 {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(*self)
    }
}

impl Element for i32 {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
        match i64::decode(deserializer)?.map(i32::try_from).transpose() {
            Ok(number) => Ok(number),
            Err(_) => Err(de::Error::custom("a number beyond 32 bits")),
        }
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(*self)
    }
}

struct FlagVisitor;

impl<'de> Visitor<'de> for FlagVisitor {
    type Value = Option<bool>;

    refuse!("a flag": number list object null);

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Option<bool>, E> {
        Ok(Some(flag))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<bool>, E> {
        Ok(Some(text.eq_ignore_ascii_case("true")))
    }
}

impl Element for bool {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
        deserializer.deserialize_any(FlagVisitor)
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Option<String>;

    refuse!("a text": list object null);

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Option<String>, E> {
        Ok(Some(flag.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Option<String>, E> {
        Ok(Some(format!("{number:?}")))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<String>, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Option<String>, E> {
        Ok(Some(text))
    }
}

impl Element for String {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl Element for Secret<String> {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        Ok(String::decode(deserializer)?.map(Secret::new))
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.reveal())
    }
}

impl Element for UrlText {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UrlText>, D::Error> {
        Ok(String::decode(deserializer)?.map(UrlText::from))
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A byte as the peer writes it: signed. Unsigned ones are read as well.
#[derive(Clone, Copy)]
struct SignedByte(u8);

impl Element for SignedByte {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SignedByte>, D::Error> {
        let Some(number) = i64::decode(deserializer)? else { return Ok(None) };
        let signed = i8::try_from(number).map(|byte| {
            let [byte] = byte.to_be_bytes();
            byte
        });
        match signed.or_else(|_| u8::try_from(number)) {
            Ok(byte) => Ok(Some(SignedByte(byte))),
            Err(_) => Err(de::Error::custom("a number that is not a byte")),
        }
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i8(i8::from_be_bytes([self.0]))
    }
}

impl Element for Secret<Vec<u8>> {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let bytes = Vec::<SignedByte>::decode(deserializer)?;
        Ok(bytes.map(|bytes| Secret::new(bytes.into_iter().map(|byte| byte.0).collect())))
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.reveal().iter().map(|byte| i8::from_be_bytes([*byte])))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Element> Visitor<'de> for ListVisitor<T> {
    type Value = Option<Vec<T>>;

    refuse!("a list": bool number text object null);

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        let mut index = 0_usize;
        // A null inside a list means nothing to anybody: it is dropped.
        loop {
            match seq.next_element::<Lenient<T>>() {
                Ok(Some(Lenient(element))) => list.extend(element),
                Ok(None) => return Ok(Some(list)),
                Err(error) => return Err(located(index, error)),
            }
            index = index.saturating_add(1);
        }
    }
}

impl<T: Element> Element for Vec<T> {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Wire))
    }
}

/// A map with text keys that keeps the order of the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dictionary<V>(IndexMap<String, V>);

impl<V> Default for Dictionary<V> {
    fn default() -> Dictionary<V> {
        Dictionary(IndexMap::new())
    }
}

impl<V> Dictionary<V> {
    /// An empty dictionary.
    pub fn new() -> Dictionary<V> {
        Dictionary::default()
    }
}

impl<V> Deref for Dictionary<V> {
    type Target = IndexMap<String, V>;

    fn deref(&self) -> &IndexMap<String, V> {
        &self.0
    }
}

impl<V> DerefMut for Dictionary<V> {
    fn deref_mut(&mut self) -> &mut IndexMap<String, V> {
        &mut self.0
    }
}

impl<K: Into<String>, V> FromIterator<(K, V)> for Dictionary<V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Dictionary<V> {
        Dictionary(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

impl<V> IntoIterator for Dictionary<V> {
    type Item = (String, V);
    type IntoIter = indexmap::map::IntoIter<String, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

struct DictionaryVisitor<V>(PhantomData<V>);

impl<'de, V: Element> Visitor<'de> for DictionaryVisitor<V> {
    type Value = Option<Dictionary<V>>;

    refuse!("an object": bool number text list null);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = IndexMap::new();
        while let Some(Key(key)) = map.next_key()? {
            match map.next_value::<Lenient<V>>() {
                Ok(Lenient(Some(value))) => {
                    entries.insert(key.into_owned(), value);
                }
                Ok(Lenient(None)) => {}
                Err(error) => return Err(located(key, error)),
            }
        }
        Ok(Some(Dictionary(entries)))
    }
}

impl<V: Element> Element for Dictionary<V> {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        deserializer.deserialize_any(DictionaryVisitor(PhantomData))
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, Wire(value))))
    }
}

/// A JSON value of a class that is not modelled; kept as it came.
#[derive(Clone)]
pub struct RawObject(Box<RawValue>);

impl RawObject {
    /// The JSON text.
    pub fn json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for RawObject {
    fn eq(&self, other: &RawObject) -> bool {
        self.json() == other.json()
    }
}

/// Prints the size only: nobody knows what is inside.
impl fmt::Debug for RawObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of JSON", self.json().len())
    }
}

impl Element for RawObject {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok((raw.get() != "null").then_some(RawObject(raw)))
    }

    fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A field type that is one of several classes.
pub(crate) trait Interface: Sized {
    /// Reads the fields of `class`; `None` for null.
    fn read_class<'de, A: MapAccess<'de>>(
        class: &str,
        map: &mut A,
    ) -> Result<Option<Self>, A::Error>;
}

/// Reads `{class: {fields}}`; only the first key counts, as for the peer.
pub(crate) struct InterfaceVisitor<T>(pub(crate) PhantomData<T>);

impl<'de, T: Interface> Visitor<'de> for InterfaceVisitor<T> {
    type Value = Option<T>;

    refuse!("an object with the class as its one key": bool number text list null);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<T>, A::Error> {
        let Some(Key(class)) = map.next_key()? else {
            return Err(de::Error::custom("an object without its class"));
        };
        let object = T::read_class(&class, &mut map).map_err(|error| located(class, error))?;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(object)
    }
}

/// Reads an object of class `T`; for nested objects and whole bodies alike.
pub(crate) struct ObjectVisitor<T>(pub(crate) PhantomData<T>);

impl<'de, T: Members> Visitor<'de> for ObjectVisitor<T> {
    type Value = Option<T>;

    refuse!("an object": bool number text list null);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<T>, A::Error> {
        let mut object = T::default();
        while let Some(Key(key)) = map.next_key()? {
            match object.read_member(&key, &mut map) {
                Ok(true) => {}
                Ok(false) => {
                    map.next_value::<IgnoredAny>()?;
                }
                Err(error) => return Err(located(key, error)),
            }
        }
        Ok(Some(object))
    }
}

/// Reads `T` from an object, null refused.
pub(crate) fn read_object<'de, T: Members, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    d.deserialize_any(ObjectVisitor(PhantomData))?
        .ok_or_else(|| de::Error::custom("null where an object is expected"))
}

/// Writes `object` as a JSON object.
pub(crate) fn write_object<T: Members, S: Serializer>(object: &T, s: S) -> Result<S::Ok, S::Error> {
    let mut map = s.serialize_map(None)?;
    object.write_members(&mut map)?;
    map.end()
}
