//! Encodes rides as the rows of a dataset file.

use super::columns::column_names;
use common::{message::EnrichedRide, ride::Weather};
use std::io::Write;

/// Returns the header line, with which every file starts.
pub fn header() -> Vec<u8> {
    let mut line = column_names().join(",").into_bytes();
    line.push(b'\n');
    line
}

/// Appends the row of one ride in the order of the header line.
pub fn push_row(out: &mut Vec<u8>, EnrichedRide { ride, weather }: &EnrichedRide) {
    push_text(out, &ride.ride_id);
    out.push(b',');
    push_text(out, &ride.name);
    out.push(b',');
    push_text(out, ride.breed.as_deref().unwrap_or_default());
    out.push(b',');
    out.extend_from_slice(&ride.statustime.canonical());
    for number in [ride.latitude, ride.longitude, ride.distance, ride.healthpoints, ride.magicpoints] {
        out.push(b',');
        push_number(out, number);
    }
    out.push(b',');
    if let Some(label) = ride.fieldservice {
        out.push(b'0' + u8::from(label.0));
    }
    match weather {
        Weather::Observed(observation) => {
            out.push(b',');
            push_text(out, &observation.groundstation);
            out.push(b',');
            push_six_decimals(out, observation.station_km);
            for tenths in [observation.tmin, observation.tmax, observation.prcp] {
                out.push(b',');
                push_integer(out, tenths.into());
            }
        }
        Weather::Missing(_) => out.extend_from_slice(b",,,,,"),
    }
    out.push(b'\n');
}

/// Appends a text field, quoted if RFC 4180 requires it.
fn push_text(out: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes();
    if !text.iter().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r')) {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Appends the shortest text that parses to the same number; an integer has no fraction.
fn push_number(out: &mut Vec<u8>, number: f64) {
    // Up to 2^53 the digits of an integer are its shortest text.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if number.trunc() == number && number.abs() <= WHOLE_MAX {
        return push_integer(out, number as i64);
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(number);
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}

fn push_integer(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_digits(out, number.unsigned_abs(), 1);
}

/// Appends at least `width` digits, at most 20.
fn push_digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 && used >= width {
            break;
        }
    }
    let (_, digits) = digits.split_at(20 - used);
    out.extend_from_slice(digits);
}

/// Appends exactly six decimals.
fn push_six_decimals(out: &mut Vec<u8>, number: f64) {
    // More than half of Earth's circumference, and small enough that an `f64` resolves a millionth.
    const FAST_MAX: f64 = 1_000_000.0;
    if !(0.0..FAST_MAX).contains(&number) {
        let _ = write!(out, "{number:.6}");
        return;
    }
    let millionths = (number * 1e6).round() as u64;
    push_digits(out, millionths / 1_000_000, 1);
    out.push(b'.');
    push_digits(out, millionths % 1_000_000, 6);
}

#[cfg(test)]
pub(super) mod tests;
