//! Our properties to AMQP's and back.

use super::legible::SUBSTITUTE;
use crate::contract::{
    envelope::{Header, Properties},
    topology,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::{Value, json};

/// AMQP short strings hold 255 bytes.
const SHORT_BYTES_MAX: usize = 255;

/// A short string, cut at the last character that fits.
pub(super) fn short(text: &str) -> ShortString {
    ShortString::try_new(text)
        .unwrap_or_else(|_| ShortString::from(text[..text.floor_char_boundary(SHORT_BYTES_MAX)].to_owned()))
}

/// Whether an exchange routes by the names of queues, which are prefixed as exchanges are.
pub(super) fn routes_by_queue(exchange: &str) -> bool {
    exchange == topology::RETRY || exchange == topology::DEAD
}

/// The routing key as it is on the broker.
pub(super) fn routing_key(namespace: &str, exchange: &str, plain: &str) -> String {
    if routes_by_queue(exchange) { format!("{namespace}{plain}") } else { plain.to_owned() }
}

pub(super) fn to_amqp(properties: &Properties) -> BasicProperties {
    let mut amqp = BasicProperties::default().with_delivery_mode(if properties.persistent { 2 } else { 1 });
    if let Some(kind) = &properties.kind {
        amqp = amqp.with_type(short(kind));
    }
    if let Some(id) = &properties.message_id {
        amqp = amqp.with_message_id(short(id));
    }
    if let Some(id) = &properties.correlation_id {
        amqp = amqp.with_correlation_id(short(id));
    }
    if let Some(queue) = &properties.reply_to {
        amqp = amqp.with_reply_to(short(queue));
    }
    if let Some(content_type) = &properties.content_type {
        amqp = amqp.with_content_type(short(content_type));
    }
    if let Some(encoding) = &properties.content_encoding {
        amqp = amqp.with_content_encoding(short(encoding));
    }
    if let Some(app_id) = &properties.app_id {
        amqp = amqp.with_app_id(short(app_id));
    }
    if let Some(timestamp) = properties.timestamp {
        amqp = amqp.with_timestamp(timestamp);
    }
    if let Some(expiration_ms) = properties.expiration_ms {
        amqp = amqp.with_expiration(short(&expiration_ms.to_string()));
    }
    if properties.headers.is_empty() {
        return amqp;
    }
    let mut headers = FieldTable::default();
    for (name, value) in &properties.headers {
        let value = match value {
            Header::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Header::Integer(value) => AMQPValue::LongLongInt(*value),
            Header::Boolean(value) => AMQPValue::Boolean(*value),
        };
        headers.insert(short(name), value);
    }
    amqp.with_headers(headers)
}

/// A name or a short text as it is told: where bytes stood that are no UTF-8, the sign for that.
pub(super) fn told(text: &str) -> String {
    text.replace(char::from(SUBSTITUTE), "\u{FFFD}")
}

pub(super) fn from_amqp(amqp: &BasicProperties) -> Properties {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| told(text.as_str()));
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
        persistent: *amqp.delivery_mode() == Some(2),
        headers: headers.filter_map(|(name, value)| Some((told(name.as_str()), header(value)?))).collect(),
    }
}

fn header(value: &AMQPValue) -> Option<Header> {
    Some(match value {
        AMQPValue::LongString(text) => Header::Text(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Header::Text(text.to_string()),
        AMQPValue::Boolean(value) => Header::Boolean(*value),
        AMQPValue::ShortShortInt(value) => Header::Integer((*value).into()),
        AMQPValue::ShortShortUInt(value) => Header::Integer((*value).into()),
        AMQPValue::ShortInt(value) => Header::Integer((*value).into()),
        AMQPValue::ShortUInt(value) => Header::Integer((*value).into()),
        AMQPValue::LongInt(value) => Header::Integer((*value).into()),
        AMQPValue::LongUInt(value) => Header::Integer((*value).into()),
        AMQPValue::LongLongInt(value) => Header::Integer(*value),
        AMQPValue::Timestamp(value) => Header::Integer(i64::try_from(*value).unwrap_or(i64::MAX)),
        AMQPValue::Void => return None,
        other => Header::Text(plain(other).to_string()),
    })
}

/// A value of any AMQP type as JSON: what a broker's own headers (`x-death`) are read from.
fn plain(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(plain).collect(),
        AMQPValue::FieldTable(table) => {
            table.inner().iter().map(|(name, value)| (told(name.as_str()), plain(value))).collect()
        }
        AMQPValue::Float(value) => json!(value),
        AMQPValue::Double(value) => json!(value),
        AMQPValue::DecimalValue(value) => json!(f64::from(value.value) / 10f64.powi(value.scale.into())),
        AMQPValue::ByteArray(bytes) => json!(hex::encode(bytes.as_slice())),
        simple => match header(simple) {
            Some(Header::Text(text)) => Value::String(text),
            Some(Header::Integer(value)) => json!(value),
            Some(Header::Boolean(value)) => json!(value),
            None => Value::Null,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_survive_the_way_there_and_back() {
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
            persistent: true,
            ..Properties::default()
        };
        properties.set_count("x-attempt", 3);
        properties.set_text("traceparent", "00-aa-bb-01");
        properties.headers.insert("flag".into(), Header::Boolean(true));
        assert_eq!(from_amqp(&to_amqp(&properties)), properties);
    }

    #[test]
    fn what_a_broker_says_of_a_death_is_json() {
        let mut death = FieldTable::default();
        death.insert("count".into(), AMQPValue::LongLongInt(1));
        death.insert("queue".into(), AMQPValue::LongString("splitter".into()));
        death.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
        let keys = lapin::types::FieldArray::from(vec![AMQPValue::LongString("ride-batch.v1".into())]);
        death.insert("routing-keys".into(), AMQPValue::FieldArray(keys));
        let deaths = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into());
        let told = r#"[{"count":1,"queue":"splitter","routing-keys":["ride-batch.v1"],"time":1700000000}]"#;
        assert_eq!(header(&deaths), Some(Header::Text(told.to_owned())));
    }

    #[test]
    fn a_text_too_long_for_amqp_is_cut_at_a_character() {
        assert_eq!(short(&"é".repeat(200)).as_str().len(), 254);
    }
}
