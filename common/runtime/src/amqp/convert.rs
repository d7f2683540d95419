//! Converts properties and names to AMQP and back.

use super::legible::SUBSTITUTE;
use crate::broker::Depth;
use common::{
    envelope::{Header, Other, Properties},
    exchange,
    topology::ExchangeKind,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, DecimalValue, FieldTable, ShortString},
};
use std::collections::BTreeMap;

/// Maximum size of an AMQP short string in bytes.
const SHORT_BYTES_MAX: usize = 255;

/// Converts text to an AMQP short string. Truncates it after the last character that fits.
pub(super) fn short(text: &str) -> ShortString {
    ShortString::try_new(text)
        .unwrap_or_else(|_| ShortString::from(text[..text.floor_char_boundary(SHORT_BYTES_MAX)].to_owned()))
}

/// Converts the kind of an exchange.
pub(super) fn kind_of(kind: ExchangeKind) -> lapin::ExchangeKind {
    match kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
    }
}

/// Returns whether the routing keys of an exchange are names of queues, which have the namespace as a prefix.
pub(super) fn routes_by_queue(exchange: &str) -> bool {
    exchange == exchange::RETRY || exchange == exchange::DEAD
}

/// Returns the routing key as used on the broker, with the namespace if it is the name of a queue.
pub(super) fn routing_key(namespace: &str, exchange: &str, plain: &str) -> String {
    if routes_by_queue(exchange) { format!("{namespace}{plain}") } else { plain.to_owned() }
}

pub(super) fn to_amqp(properties: &Properties) -> BasicProperties {
    type WithText = fn(BasicProperties, ShortString) -> BasicProperties;
    let expiration = properties.expiration_ms.map(|expiration_ms| expiration_ms.to_string());
    let texts: [(_, WithText); 8] = [
        (&properties.kind, BasicProperties::with_type),
        (&properties.message_id, BasicProperties::with_message_id),
        (&properties.correlation_id, BasicProperties::with_correlation_id),
        (&properties.reply_to, BasicProperties::with_reply_to),
        (&properties.content_type, BasicProperties::with_content_type),
        (&properties.content_encoding, BasicProperties::with_content_encoding),
        (&properties.app_id, BasicProperties::with_app_id),
        (&expiration, BasicProperties::with_expiration),
    ];
    let mut amqp = BasicProperties::default().with_delivery_mode(if properties.persistent { 2 } else { 1 });
    for (text, with_text) in texts {
        if let Some(text) = text {
            amqp = with_text(amqp, short(text));
        }
    }
    if let Some(timestamp) = properties.timestamp {
        amqp = amqp.with_timestamp(timestamp);
    }
    if let Some(priority) = properties.priority {
        amqp = amqp.with_priority(priority);
    }
    if properties.headers.is_empty() {
        return amqp;
    }
    amqp.with_headers(table(&properties.headers))
}

fn table(values: &BTreeMap<String, Header>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in values {
        table.insert(short(name), value_of(value));
    }
    table
}

fn value_of(header: &Header) -> AMQPValue {
    let other = match header {
        Header::Text(text) => return AMQPValue::LongString(text.as_str().into()),
        Header::Integer(value) => return AMQPValue::LongLongInt(*value),
        Header::Boolean(value) => return AMQPValue::Boolean(*value),
        Header::Other(other) => other,
    };
    match other {
        Other::I8(value) => AMQPValue::ShortShortInt(*value),
        Other::U8(value) => AMQPValue::ShortShortUInt(*value),
        Other::I16(value) => AMQPValue::ShortInt(*value),
        Other::U16(value) => AMQPValue::ShortUInt(*value),
        Other::I32(value) => AMQPValue::LongInt(*value),
        Other::U32(value) => AMQPValue::LongUInt(*value),
        Other::Time(value) => AMQPValue::Timestamp(*value),
        Other::Float(bits) => AMQPValue::Float(f32::from_bits(*bits)),
        Other::Double(bits) => AMQPValue::Double(f64::from_bits(*bits)),
        Other::Decimal { scale, value } => AMQPValue::DecimalValue(DecimalValue { scale: *scale, value: *value }),
        Other::Bytes(bytes) => AMQPValue::ByteArray(bytes.clone().into()),
        Other::Array(values) => AMQPValue::FieldArray(values.iter().map(value_of).collect::<Vec<_>>().into()),
        Other::Table(values) => AMQPValue::FieldTable(table(values)),
        Other::Void => AMQPValue::Void,
    }
}

/// Replaces each [`SUBSTITUTE`], which stands for a byte that was not UTF-8, by U+FFFD.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::from(SUBSTITUTE), "\u{FFFD}")
}

pub(super) fn from_amqp(amqp: &BasicProperties) -> Properties {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| printable(text.as_str()));
    let headers = amqp.headers().as_ref().map(FieldTable::inner).into_iter().flatten();
    Properties {
        kind: text(amqp.kind()),
        message_id: text(amqp.message_id()),
        correlation_id: text(amqp.correlation_id()),
        reply_to: text(amqp.reply_to()),
        content_type: text(amqp.content_type()),
        content_encoding: text(amqp.content_encoding()),
        app_id: text(amqp.app_id()),
        timestamp: *amqp.timestamp(),
        expiration_ms: amqp.expiration().as_ref().and_then(|text| text.as_str().parse().ok()),
        priority: *amqp.priority(),
        persistent: *amqp.delivery_mode() == Some(2),
        headers: headers.map(|(name, value)| (printable(name.as_str()), header(value))).collect(),
    }
}

fn header(value: &AMQPValue) -> Header {
    Header::Other(match value {
        AMQPValue::LongString(text) => return Header::Text(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::Boolean(value) => return Header::Boolean(*value),
        AMQPValue::LongLongInt(value) => return Header::Integer(*value),
        AMQPValue::ShortString(text) => return Header::Text(printable(text.as_str())),
        AMQPValue::ShortShortInt(value) => Other::I8(*value),
        AMQPValue::ShortShortUInt(value) => Other::U8(*value),
        AMQPValue::ShortInt(value) => Other::I16(*value),
        AMQPValue::ShortUInt(value) => Other::U16(*value),
        AMQPValue::LongInt(value) => Other::I32(*value),
        AMQPValue::LongUInt(value) => Other::U32(*value),
        AMQPValue::Timestamp(value) => Other::Time(*value),
        AMQPValue::Float(value) => Other::Float(value.to_bits()),
        AMQPValue::Double(value) => Other::Double(value.to_bits()),
        AMQPValue::DecimalValue(DecimalValue { scale, value }) => Other::Decimal { scale: *scale, value: *value },
        AMQPValue::ByteArray(bytes) => Other::Bytes(bytes.as_slice().to_vec()),
        AMQPValue::FieldArray(array) => Other::Array(array.as_slice().iter().map(header).collect()),
        AMQPValue::FieldTable(table) => {
            Other::Table(table.inner().iter().map(|(name, value)| (printable(name.as_str()), header(value))).collect())
        }
        AMQPValue::Void => Other::Void,
    })
}

/// Returns the counts from a passive declaration, which does not report unacknowledged or acknowledged messages.
pub(super) fn depth(queue: &lapin::Queue) -> Depth {
    Depth {
        messages: queue.message_count().into(),
        consumers: queue.consumer_count().into(),
        unacknowledged: None,
        acknowledged_total: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_convert_to_amqp_and_back() {
        let mut properties = Properties {
            kind: Some("ride-chunk.v1".into()),
            message_id: Some("b/ride-chunk/1".into()),
            correlation_id: Some("c".into()),
            reply_to: Some("amq.gen-x".into()),
            content_type: Some("application/json".into()),
            content_encoding: Some("gzip".into()),
            app_id: Some("splitter/0.1.0".into()),
            timestamp: Some(1_700_000_000),
            expiration_ms: Some(1500),
            priority: Some(7),
            persistent: true,
            ..Properties::default()
        };
        properties.set_count("x-attempt", 3);
        properties.set_text("traceparent", "00-aa-bb-01");
        properties.headers.insert("flag".into(), Header::Boolean(true));
        let others = [
            Other::I8(-1),
            Other::U8(255),
            Other::I16(-300),
            Other::U16(60_000),
            Other::I32(-70_000),
            Other::U32(4_000_000_000),
            Other::Time(1_700_000_000),
            Other::Float(1.5f32.to_bits()),
            Other::Double(0.1f64.to_bits()),
            Other::Decimal { scale: 2, value: 314 },
            Other::Bytes(vec![0, 255]),
            Other::Void,
        ];
        let others = Header::Other(Other::Array(others.into_iter().map(Header::Other).collect()));
        properties
            .headers
            .insert("others".into(), Header::Other(Other::Table([("in a table".to_owned(), others)].into())));
        assert_eq!(from_amqp(&to_amqp(&properties)), properties);
    }

    #[test]
    fn the_header_x_death_converts_to_json() {
        let mut death = FieldTable::default();
        death.insert("count".into(), AMQPValue::LongLongInt(1));
        death.insert("queue".into(), AMQPValue::LongString("splitter".into()));
        death.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
        let keys = lapin::types::FieldArray::from(vec![AMQPValue::LongString("ride-batch.v1".into())]);
        death.insert("routing-keys".into(), AMQPValue::FieldArray(keys));
        let deaths = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into());
        let expected = r#"[{"count":1,"queue":"splitter","routing-keys":["ride-batch.v1"],"time":1700000000}]"#;
        assert_eq!(header(&deaths).to_json().to_string(), expected);
    }

    #[test]
    fn a_text_too_long_for_amqp_is_truncated_at_a_character() {
        assert_eq!(short(&"é".repeat(200)).as_str().len(), 254);
    }
}
