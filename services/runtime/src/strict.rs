//! JSON from outside, taken strictly: an object is an object, its fields are those that there are, each once, no string holds
//! NUL, and nothing is nested without an end.
//!
//! serde alone takes an array in place of an object, fields that it does not know, and, where a field may hold anything, the
//! last of two fields of one name.

use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Error, Map, Number, Value};
use std::fmt;

/// How deep a body may be nested. (An event's payload may be as deep.)
const MAX_DEPTH: usize = 64;

/// A value in which each field stands once, without NUL, and not nested too deep.
pub(crate) struct Checked(Value);

impl Checked {
    /// To be made something of.
    pub(crate) fn strict(self) -> Strict {
        self.0.into()
    }
}

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Check { depth: 0 }.deserialize(deserializer).map(Self)
    }
}

struct Check {
    depth: usize,
}

impl Check {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        match self.depth {
            MAX_DEPTH => Err(E::custom(format!("too deep, expected at most {MAX_DEPTH} levels of objects and lists"))),
            depth => Ok(Self { depth: depth + 1 }),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        // Postgres has no place for it.
        match text.contains('\0') {
            true => Err(E::custom("NUL, expected a string without the character NUL")),
            false => Ok(text.into()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.deeper()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            // What is wrong with a field is told at its place, which is known while its value is read.
            if name.contains('\0') {
                object.next_value_seed(Refuse("a name without the character NUL"))?;
            }
            if fields.contains_key(&name) {
                object.next_value_seed(Refuse("each field once"))?;
            }
            let value = object.next_value_seed(self.deeper()?)?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// Takes no value.
struct Refuse(&'static str);

impl<'de> DeserializeSeed<'de> for Refuse {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(D::Error::custom(format!("refused, expected {}", self.0)))
    }
}

/// A value that becomes what it is and nothing else: a struct is made of an object alone, with no other fields than its own.
pub(crate) struct Strict {
    value: Value,
    /// Of a field that its struct does not have: those that it has.
    unknown_to: Option<&'static [&'static str]>,
}

impl From<Value> for Strict {
    fn from(value: Value) -> Self {
        Self { value, unknown_to: None }
    }
}

impl Strict {
    fn is_not(&self, expected: &dyn Expected) -> Error {
        let unexpected = match &self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(_) => Unexpected::Other("number"),
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Error::invalid_type(unexpected, expected)
    }
}

impl IntoDeserializer<'_, Error> for Strict {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Makes something of an object, whose fields are `known` if it is to be a struct.
fn visit<'de, V: Visitor<'de>>(
    object: Map<String, Value>,
    known: Option<&'static [&'static str]>,
    visitor: V,
) -> Result<V::Value, Error> {
    let fields = object.into_iter().map(|(name, value)| {
        let unknown_to = known.filter(|known| !known.contains(&name.as_str()));
        (name, Strict { value, unknown_to })
    });
    let mut fields = MapDeserializer::new(fields);
    let made = visitor.visit_map(&mut fields)?;
    fields.end()?;
    Ok(made)
}

impl<'de> Deserializer<'de> for Strict {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(values) => {
                let mut values = SeqDeserializer::new(values.into_iter().map(Self::from));
                let made = visitor.visit_seq(&mut values)?;
                values.end()?;
                Ok(made)
            }
            Value::Object(object) => visit(object, None, visitor),
        }
    }

    /// Where nothing is made of a value, its struct has no such field.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.unknown_to {
            Some(fields) => Err(Error::custom(format!("unknown, expected one of {}", fields.join(", ")))),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Object(object) => visit(object, None, visitor),
            _ => Err(self.is_not(&"a JSON object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::Object(object) => visit(object, Some(fields), visitor),
            _ => Err(self.is_not(&"a JSON object")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value.is_null() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::String(name) => visitor.visit_enum(Variant { name, value: None }),
            Value::Object(object) if object.len() == 1 => {
                let variant = object.into_iter().map(|(name, value)| Variant { name, value: Some(value) }).next();
                variant.map_or_else(|| Err(Error::custom("no variant")), |variant| visitor.visit_enum(variant))
            }
            other => Err(Self::from(other).is_not(&"a string, or an object with one field")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct identifier
    }
}

/// A variant by its name alone, or with a value.
struct Variant {
    name: String,
    value: Option<Value>,
}

/// What stands with a variant.
struct Content(Option<Value>);

impl Content {
    fn value(self) -> Strict {
        self.0.unwrap_or_default().into()
    }
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Content;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content), Error> {
        let name: StringDeserializer<Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.value)))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        <()>::deserialize(self.value())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.value())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Error> {
        self.value().deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.value().deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        sku: String,
        count: Option<u32>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Call {
        Void,
        Capture { id: u32 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        lines: Vec<Line>,
        call: Call,
        any: Value,
    }

    fn body(text: &str) -> Result<Body, String> {
        let checked: Checked = serde_json::from_str(text).map_err(|e| e.to_string())?;
        Body::deserialize(checked.strict()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_right_is_taken_as_serde_takes_it() {
        for call in [r#""void""#, r#"{"capture":{"id":1}}"#] {
            let text = format!(
                r#"{{"lines":[{{"sku":"a","count":null}},{{"sku":"b","count":2}}],"call":{call},"any":[1,-1,1.5,{{"a":[]}}]}}"#
            );
            assert_eq!(body(&text).unwrap(), serde_json::from_str(&text).unwrap());
        }
    }

    #[test]
    fn an_object_is_no_list() {
        for (lines, call) in [
            (json!([["a", 1]]), json!("void")),
            (json!([]), json!({ "capture": [1] })),
            (json!([]), json!(["void"])),
            (json!([]), json!({ "void": 1 })),
            (json!([]), json!("capture")),
            (json!([]), json!({ "capture": { "id": 1, "unknown": 1 } })),
            (json!([]), json!({ "void": null, "capture": { "id": 1 } })),
            (json!({ "sku": "a" }), json!("void")),
        ] {
            let text = json!({ "lines": lines, "call": call, "any": 1 }).to_string();
            assert!(body(&text).is_err(), "{text}");
        }
        assert!(body(r#"[[],"void",1]"#).unwrap_err().contains("expected a JSON object"));
    }

    #[test]
    fn a_field_stands_once_without_nul_and_not_too_deep() {
        let any = |any: &str| body(&format!(r#"{{"lines":[],"call":"void","any":{any}}}"#));
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(any(&nested(63)).is_ok());
        for (bad, expected) in [
            (r#"{"a":1,"a":1}"#, "each field once"),
            (r#"[{"b":{"a":1,"c":2,"a":1}}]"#, "each field once"),
            (r#""\u0000""#, "without the character NUL"),
            (r#"{"a\u0000":1}"#, "without the character NUL"),
            (&nested(65), "at most 64 levels"),
        ] {
            let refused = any(bad).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
