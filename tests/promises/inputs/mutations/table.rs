//! Mutations of CSV: dialects that are read, and damage that is named by its line.

use super::{
    document::{Dialect, Expected, Mutation, RIDES, all_accepted, all_but, rides},
    draw::Draw,
};

fn read(elements: Vec<Option<&'static str>>) -> Expected {
    Expected::Read { elements, cells: Vec::new(), words: Vec::new() }
}

/// Delimiters, quotes, line ends, marks, blank lines, other columns and their order.
pub(super) fn dialect(draw: &mut Draw) -> Mutation {
    let dialect = Dialect {
        delimiter: draw.one_of(&[',', ';', '\t', '|']),
        line_end: draw.one_of(&["\n", "\r\n", "\r"]),
        quotes_all: draw.once_in(2),
    };
    let (mut rides, position) = (rides(), draw.below(RIDES));
    let name = draw.one_of(&["Tempest; the \"red\" one", "two\nlines", "a,b|c\td", "  blanks ", "Ægir", "\"quoted\""]);
    rides[position].set("name", &serde_json::json!(name).to_string());
    if draw.once_in(2) {
        let other = draw.one_of(&["colour", "", "note"]);
        let at = draw.below(rides[0].0.len() + 1);
        rides.iter_mut().for_each(|ride| ride.0.insert(at, (other.to_owned(), "\"red\"".to_owned())));
    }
    if draw.once_in(2) {
        let shift = draw.below(rides[0].0.len());
        rides.iter_mut().for_each(|ride| ride.0.rotate_left(shift));
    }
    let mut text = dialect.write(&rides);
    if draw.once_in(3) {
        text = format!("sep={}{}{text}", dialect.delimiter, dialect.line_end);
    }
    if draw.once_in(3) {
        text.push_str(&dialect.line_end.repeat(3));
    }
    let words = format!("{dialect:?}, name {name:?}");
    Mutation::of_text(draw, words, &text, read(all_accepted())).with_cell(position, "name", name)
}

/// Lost cells and quotes reject a row, or the document is refused with the line.
pub(super) fn damage(draw: &mut Draw) -> Mutation {
    let dialect = Dialect { delimiter: draw.one_of(&[',', ';']), ..Dialect::default() };
    let delimiter = dialect.delimiter;
    let text = dialect.write(&rides());
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // The header is line 1.
    let position = draw.below(RIDES - 1);
    let line = position + 2;
    let row = lines[position + 1].clone();
    let refused = |parts: &[String]| Expected::Refused { codes: &["invalid_csv"], words: parts.to_vec() };
    let on_line = format!("line {line} ");
    let (words, expected) = match draw.below(8) {
        0 => {
            lines[position + 1] = row.replacen(delimiter, "", 1);
            ("a cell too few", read(all_but(position, "not_an_object")))
        }
        1 => {
            lines[position + 1].extend([delimiter, 'x']);
            ("a cell too many", read(all_but(position, "not_an_object")))
        }
        2 => {
            lines[position + 1] = format!("\"{row}");
            ("a quote that stays open", refused(&[on_line]))
        }
        3 => {
            lines[position + 1] = row.replacen("Unicorn", "\"Uni\"corn", 1);
            ("text after a quote", refused(&[on_line]))
        }
        4 => {
            let next = lines.remove(position + 2);
            lines[position + 1].push_str(&next);
            ("a line break lost", refused(&[on_line, "two rows".to_owned()]))
        }
        5 => {
            lines[0] = lines[0].replacen("magicpoints", "Distance", 1);
            ("a column twice", refused(&["line 1 ".to_owned(), "distance".to_owned()]))
        }
        6 => {
            lines.remove(0);
            let words = vec!["header".to_owned()];
            ("no header", Expected::Refused { codes: &["not_a_batch"], words })
        }
        _ => {
            let mut bytes = (lines.join("\n") + "\n").into_bytes();
            let place = lines[..=position].iter().map(|line| line.len() + 1).sum::<usize>() + draw.below(6);
            bytes[place] = 0xE9;
            let expected = refused(&[on_line, "0xe9".to_owned()]);
            return Mutation::of_bytes(draw, format!("Latin-1 on line {line}"), bytes, expected);
        }
    };
    Mutation::of_text(draw, format!("{words}, row {position}"), &(lines.join("\n") + "\n"), expected)
}
