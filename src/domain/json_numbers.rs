//! Looks for numbers that JSON cannot carry to whoever reads it.
//!
//! A writer of JSON writes null for NaN and the infinities and says nothing, so it cannot be asked. This walks through
//! a value as a writer does, and notices them, with the way to them.

use std::fmt::Display;

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::json_error::JsonError;

/// Refuses NaN, the infinities, and whole numbers that do not fit into 64 bits.
pub(super) fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), JsonError> {
    value.serialize(&mut Walk { way: String::new() }).map_err(|Found(error)| error)
}

/// What was found.
#[derive(Debug)]
struct Found(JsonError);

impl Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Found {}

impl serde::ser::Error for Found {
    fn custom<T: Display>(message: T) -> Self {
        Self(JsonError::Unwritable(message.to_string()))
    }
}

type Checked = Result<(), Found>;

struct Walk {
    /// From the whole to the part that is looked at, `.rows[3].rate`.
    way: String,
}

impl Walk {
    fn float(&self, number: f64) -> Checked {
        let number = match number {
            n if n.is_nan() => "NaN",
            f64::INFINITY => "infinity",
            f64::NEG_INFINITY => "-infinity",
            _ => return Ok(()),
        };
        Err(Found(JsonError::NoNumber { number, at: self.way.clone() }))
    }

    fn beyond(&self, number: impl Display) -> Found {
        Found(JsonError::Beyond64Bits { number: number.to_string(), at: self.way.clone() })
    }

    fn inside(&mut self) -> Inside<'_> {
        Inside { back: self.way.len(), next: 0, walk: self }
    }

    fn variant(&mut self, name: &str) -> Inside<'_> {
        let back = self.way.len();
        self.way.push('.');
        self.way.push_str(name);
        Inside { back, next: 0, walk: self }
    }
}

/// An array or an object.
struct Inside<'a> {
    walk: &'a mut Walk,
    /// Length of the way to it.
    back: usize,
    /// Number of its next element.
    next: usize,
}

impl Inside<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
        let here = self.walk.way.len();
        self.walk.way.push_str(&format!("[{}]", self.next));
        self.next += 1;
        value.serialize(&mut *self.walk)?;
        self.walk.way.truncate(here);
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Checked {
        let here = self.walk.way.len();
        self.walk.way.push('.');
        self.walk.way.push_str(name);
        value.serialize(&mut *self.walk)?;
        self.walk.way.truncate(here);
        Ok(())
    }

    fn done(self) -> Checked {
        self.walk.way.truncate(self.back);
        Ok(())
    }
}

macro_rules! nothing_to_check {
    ($($method:ident($type:ty))*) => {
        $(fn $method(self, _: $type) -> Checked { Ok(()) })*
    };
}

impl<'a> Serializer for &'a mut Walk {
    type Ok = ();
    type Error = Found;
    type SerializeSeq = Inside<'a>;
    type SerializeTuple = Inside<'a>;
    type SerializeTupleStruct = Inside<'a>;
    type SerializeTupleVariant = Inside<'a>;
    type SerializeMap = Inside<'a>;
    type SerializeStruct = Inside<'a>;
    type SerializeStructVariant = Inside<'a>;

    nothing_to_check! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_char(char)
        serialize_str(&str) serialize_bytes(&[u8]) serialize_unit_struct(&'static str)
    }

    fn serialize_i128(self, number: i128) -> Checked {
        let fits = i64::try_from(number).is_ok() || u64::try_from(number).is_ok();
        if fits { Ok(()) } else { Err(self.beyond(number)) }
    }

    fn serialize_u128(self, number: u128) -> Checked {
        if u64::try_from(number).is_ok() { Ok(()) } else { Err(self.beyond(number)) }
    }

    fn serialize_f32(self, number: f32) -> Checked {
        self.float(f64::from(number))
    }

    fn serialize_f64(self, number: f64) -> Checked {
        self.float(number)
    }

    fn serialize_none(self) -> Checked {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Checked {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Checked {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Checked {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Checked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Checked {
        let mut inside = self.inside();
        inside.field(variant, value)?;
        inside.done()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Inside<'a>, Found> {
        Ok(self.inside())
    }

    fn serialize_tuple(self, _: usize) -> Result<Inside<'a>, Found> {
        Ok(self.inside())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Inside<'a>, Found> {
        Ok(self.inside())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Inside<'a>, Found> {
        Ok(self.variant(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Inside<'a>, Found> {
        Ok(self.inside())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Inside<'a>, Found> {
        Ok(self.inside())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Inside<'a>, Found> {
        Ok(self.variant(variant))
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Checked {
        Ok(())
    }
}

impl SerializeMap for Inside<'_> {
    type Ok = ();
    type Error = Found;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked {
        // Whether it can be a key at all, the writer has found out before.
        self.walk.way.truncate(self.back);
        self.walk.way.push('.');
        match serde_json::to_value(key) {
            Ok(serde_json::Value::String(name)) => self.walk.way.push_str(&name),
            Ok(other) => self.walk.way.push_str(&other.to_string()),
            Err(_) => {}
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
        value.serialize(&mut *self.walk)
    }

    fn end(self) -> Checked {
        self.done()
    }
}

macro_rules! elements {
    ($($trait:ident $method:ident)*) => {
        $(impl $trait for Inside<'_> {
            type Ok = ();
            type Error = Found;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
                self.element(value)
            }

            fn end(self) -> Checked {
                self.done()
            }
        })*
    };
}

elements! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! fields {
    ($($trait:ident)*) => {
        $(impl $trait for Inside<'_> {
            type Ok = ();
            type Error = Found;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Checked {
                self.field(name, value)
            }

            fn end(self) -> Checked {
                self.done()
            }
        })*
    };
}

fields! { SerializeStruct SerializeStructVariant }

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::json_text::JsonText;
    use super::*;

    #[derive(serde::Serialize)]
    struct Cursor {
        row: u64,
        rate: f64,
        rest: Rest,
    }

    #[derive(serde::Serialize)]
    enum Rest {
        One(f32),
        Many { of: BTreeMap<u8, Vec<Option<f64>>> },
        Pair(u128, i128),
    }

    fn refused(value: &impl Serialize) -> String {
        JsonText::of(value).expect_err("it was taken").to_string()
    }

    #[test]
    fn a_number_that_would_become_null_is_refused_with_the_way_to_it() {
        let cursor = |rate, rest| Cursor { row: u64::MAX, rate, rest };
        assert_eq!(refused(&cursor(f64::NAN, Rest::One(0.5))), "has a number that JSON cannot hold (NaN) at .rate");
        assert!(refused(&cursor(0.1, Rest::One(f32::INFINITY))).ends_with("(infinity) at .rest.One"));
        let of = BTreeMap::from([(1, vec![Some(1.0)]), (2, vec![None, Some(f64::NEG_INFINITY)])]);
        assert!(refused(&cursor(0.1, Rest::Many { of })).ends_with("(-infinity) at .rest.Many.of.2[1]"));
        let wide = refused(&cursor(0.1, Rest::Pair(1, i128::from(i64::MIN) - 1)));
        assert_eq!(
            wide,
            "has a whole number that does not fit into 64 bits (-9223372036854775809) at .rest.Pair[1]: keep it as text"
        );
        assert!(refused(&f64::NAN).ends_with("cannot hold (NaN)"));
        assert!(refused(&BTreeMap::from([((1, 2), 3)])).contains("cannot be written"));
    }

    #[test]
    fn all_else_is_written_as_it_is() {
        let value = Cursor { row: u64::MAX, rate: 0.1, rest: Rest::Pair(u128::from(u64::MAX), i128::from(i64::MIN)) };
        let text =
            r#"{"row":18446744073709551615,"rate":0.1,"rest":{"Pair":[18446744073709551615,-9223372036854775808]}}"#;
        assert_eq!(JsonText::of(&value).expect("JSON").as_str(), text);
        let mut deep = serde_json::json!(null);
        for _ in 0..200 {
            deep = serde_json::json!([deep]);
        }
        assert!(refused(&deep).contains("127 arrays and objects"));
    }
}
