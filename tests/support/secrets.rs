//! The forms in which programs may print a secret.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The forms of a text: plain, as bytes in decimal or hexadecimal, in Base64 at any offset, percent-encoded.
pub fn forms(text: &str) -> Vec<String> {
    let each = |join: &str, form: &dyn Fn(u8) -> String| text.bytes().map(form).collect::<Vec<_>>().join(join);
    let mut forms = vec![text.to_owned()];
    for join in [", ", ",", " "] {
        forms.push(each(join, &|byte| byte.to_string()));
        forms.push(each(join, &|byte| format!("{byte:02x}")));
        forms.push(each(join, &|byte| format!("{byte:02X}")));
        forms.push(each(join, &|byte| format!("0x{byte:02x}")));
    }
    forms.push(each("", &|byte| format!("{byte:02x}")));
    forms.push(each("", &|byte| format!("{byte:02X}")));
    forms.push(each("", &|byte| format!("\\x{byte:02x}")));
    forms.push(each("", &|byte| format!("%{byte:02X}")));
    for offset in 0..3 {
        // The characters that do not depend on the text's neighbours.
        let encoded = STANDARD.encode([&b"\0\0\0"[..offset], text.as_bytes()].concat());
        let (start, end) = ((offset * 8).div_ceil(6), (offset + text.len()) * 8 / 6);
        forms.push(encoded[start..end].to_owned());
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let forms = forms("hunter2");
        for (text, how) in [
            ("body: [0, 104, 117, 110, 116, 101, 114, 50, 45]".to_owned(), "decimal"),
            ("68756e746572322d".to_owned(), "hexadecimal"),
            (STANDARD.encode("guest:hunter2-p"), "Base64"),
            (STANDARD.encode("gues:hunter2-p"), "Base64"),
            (STANDARD.encode("gue:hunter2-p"), "Base64"),
            ("u:%68%75%6E%74%65%72%32@h".to_owned(), "percent-encoded"),
        ] {
            assert!(forms.iter().any(|form| text.contains(form)), "{how}: {text}");
        }
    }
}
