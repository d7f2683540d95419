use super::*;
use crate::ride::RIDE_BYTES_MAX;
use crate::source::tests::{LIMITS, block_on, read, read_in, utf16};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The records of a CSV document.
async fn records(csv: impl AsRef<[u8]>) -> Vec<Value> {
    let (lines, records) = read(csv.as_ref()).await.unwrap();
    assert!(records, "{lines}");
    assert!(lines.is_empty() || lines.ends_with('\n'));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn refusal(csv: impl AsRef<[u8]>) -> String {
    read(csv.as_ref()).await.unwrap_err()
}

fn rides() -> Vec<Value> {
    vec![
        json!({"name": "Twilight", "latitude": "40.5", "fieldservice": "1"}),
        json!({"name": "Qilin", "latitude": "-74"}),
    ]
}

#[tokio::test]
async fn every_delimiter_and_line_end_is_read() {
    for delimiter in [",", ";", "\t", "|"] {
        for line_end in ["\n", "\r\n", "\r"] {
            for last in ["", line_end, &line_end.repeat(3)] {
                let rows = ["name,latitude,fieldservice", "Twilight,40.5,1", "Qilin,-74,"];
                let csv = rows.join(line_end).replace(',', delimiter) + last;
                assert_eq!(records(&csv).await, rides(), "{csv:?}");
            }
        }
    }
}

#[tokio::test]
async fn csv_of_excel_and_windows_is_read() {
    let csv = "\u{FEFF}name;latitude;fieldservice\r\nTwilight;40.5;1\r\nQilin;-74;\r\n";
    assert_eq!(records(csv).await, rides());
    for delimiter in [";", ",", "\t", "^"] {
        let csv = format!("sep={delimiter}\r\n{}", csv.trim_start_matches('\u{FEFF}').replace(';', delimiter));
        assert_eq!(records(&csv).await, rides(), "{csv}");
        assert_eq!(records(format!("\u{FEFF}{csv}")).await, rides());
    }
    let tabs = csv.replace(';', "\t");
    for little in [true, false] {
        assert_eq!(records(utf16(&tabs, little)).await, rides(), "Unicode text");
    }
}

#[tokio::test]
async fn blank_lines_are_skipped_and_names_are_trimmed() {
    let csv = "\n  \r\n Name ,\u{FEFF}LATITUDE\u{200B}, field service \n\nTwilight,40.5,1\n   \n\"\",,\n,,\n";
    let expected = [json!({"Name": "Twilight", "LATITUDE": "40.5", "field service": "1"}), json!({}), json!({})];
    assert_eq!(records(csv).await, expected);
    let marks = "\u{FEFF}name,latitude\n\u{FEFF}A,1\n\u{FEFF}\"B\",2\n\u{FE0F}C,3\n";
    let names: Vec<_> = records(marks).await.into_iter().map(|record| record["name"].clone()).collect();
    assert_eq!(names, ["A", "B", "\u{FE0F}C"], "a mark before each row");
}

#[tokio::test]
async fn quoted_cells_keep_their_content() {
    let csv =
        "name,\"latitude\",\"note \"\"n\"\"\"\n\"Twi, \"\"S\"\" \n light\" ,40.5,\"a\r\nb\"\n\"\"\"\",\"\",5\" pipe\n";
    let expected = [
        json!({"name": "Twi, \"S\" \n light", "latitude": "40.5", "note \"n\"": "a\r\nb"}),
        json!({"name": "\"", "note \"n\"": "5\" pipe"}),
    ];
    assert_eq!(records(csv).await, expected);
}

#[tokio::test]
async fn a_row_with_a_wrong_number_of_cells_becomes_a_string() {
    let csv = "name,latitude,distance\nA,1\nB,1,2,3\nC,1,2\nD,1,2,,,, \nE,1,,2\n\n\"F\"\n";
    let expected = [
        json!("line 2 has 2 cells, the header 3: A,1"),
        json!("line 3 has 4 cells, the header 3: B,1,2,3"),
        json!({"name": "C", "latitude": "1", "distance": "2"}),
        json!({"name": "D", "latitude": "1", "distance": "2"}),
        json!("line 6 has 4 cells, the header 3: E,1,,2"),
        json!("line 8 has 1 cell, the header 3: F"),
    ];
    assert_eq!(records(csv).await, expected);
}

/// Blanks before and after a quoted cell, as in a text that is aligned by hand.
#[tokio::test]
async fn a_quote_after_a_blank_opens_a_quoted_cell() {
    let csv = "\"name\" , \"latitude\",\t\"note\"\n\"A\", \"1\" ,  \"x, \"\"y\"\"\"\n B , 2,  \n \"\", 3, c \"d\"\n";
    let expected = [
        json!({"name": "A", "latitude": "1", "note": "x, \"y\""}),
        json!({"name": " B ", "latitude": " 2", "note": "  "}),
        json!({"latitude": " 3", "note": " c \"d\""}),
    ];
    assert_eq!(records(csv).await, expected);
    let tabs = csv.replace(",\t", "\t").replace("x, ", "x\u{a0}").replace(',', "\t");
    assert_eq!(records(&tabs).await.len(), 3);
    let why = refusal("name,latitude\nA, \"1\n2,3\"\n").await;
    assert_eq!(
        why,
        "the quote that opens a cell on line 2 of the CSV, after a blank, is not closed on that line; close it, or remove the \
         blank before it"
    );
}

#[tokio::test]
async fn other_quotes_are_refused_by_name() {
    for (header, quotes) in [
        ("'name','latitude'", "single quotes"),
        ("`name`;`latitude`", "backticks"),
        ("\u{201c}name\u{201d},\u{201c}latitude\u{201d}", "typographic quotes"),
    ] {
        let why = refusal(format!("{header}\nA,1\n")).await;
        assert!(why.starts_with("the CSV header on line 1 has every name in") && why.contains(quotes), "{why}");
    }
    assert_eq!(records("'name,latitude\nA,1\n").await, [json!({"'name": "A", "latitude": "1"})]);
}

#[tokio::test]
async fn comments_before_a_header_are_skipped_and_other_text_is_refused() {
    let header = "name,latitude,longitude";
    let expected = [json!({"name": "A", "latitude": "1", "longitude": "2"})];
    for before in ["# rides of 2018\n", "\u{feff}# a, b\r\n\n#\n", "  # x; y\n"] {
        assert_eq!(records(format!("{before}{header}\nA,1,2\n")).await, expected, "{before:?}");
    }
    let why = refusal(format!("# x\n{header}\nA,1,2\nB,1\n,\"\n")).await;
    assert!(why.contains("line 5"), "{why}");
    for title in ["Rides of 2018\n\n", "Rides of 2018,,\n\n", "export; 2018-04-25\n\n"] {
        let why = refusal(format!("{title}{header}\nA,1,2\n")).await;
        assert!(why.starts_with("the header of the CSV seems to be on line 3, below other text"), "{title:?}: {why}");
    }
    assert_eq!(records("#name,latitude,longitude,distance\nA,1,2,3\n").await[0]["#name"], "A");
}

#[tokio::test]
async fn the_end_of_file_mark_of_dos_is_skipped() {
    let expected = [json!({"name": "A", "latitude": "1"})];
    for end in ["\r\n\u{1a}", "\n\u{1a}\n", "\n\n\u{1a}\u{1a}"] {
        assert_eq!(records(format!("name,latitude\nA,1{end}")).await, expected, "{end:?}");
    }
}

#[tokio::test]
async fn a_column_without_a_name_is_left_out() {
    assert_eq!(records(",name,latitude\n0,A,1\n1,B,2\n").await[1], json!({"name": "B", "latitude": "2"}));
}

#[tokio::test]
async fn a_header_without_rows_is_an_empty_batch() {
    for csv in ["name,latitude", "name,latitude\n", "\u{FEFF}name;latitude\r\n\r\n", "sep=,\nname,latitude\n"] {
        assert_eq!(records(csv).await, [] as [Value; 0], "{csv:?}");
    }
}

#[tokio::test]
async fn unknown_names_make_a_header_if_values_follow() {
    let expected = [json!({"wann": "2018-04-25 17:03:05", "breite": "40.5", "wie weit": "3"})];
    assert_eq!(records("wann,breite,wie weit\n2018-04-25 17:03:05,40.5,3\n").await, expected);
    assert_eq!(records("a\tlat\n\t1\n").await, [json!({"lat": "1"})], "nearly a field");
}

/// A column name with braces does not make a table JSON.
#[tokio::test]
async fn a_header_with_braces_is_a_header() {
    for name in ["}fieldservice", "note {n}", "<b>note</b>", "{{ note }}"] {
        let csv = format!("name,latitude,longitude,{name}\nA,1,2,3\n");
        assert_eq!(records(csv).await, [json!({"name": "A", "latitude": "1", "longitude": "2", name: "3"})]);
    }
}

#[tokio::test]
async fn other_texts_are_not_read_as_csv() {
    for text in [
        "",
        "hello",
        "hello, world",
        "Dear all,\nplease find the rides, attached\n",
        "{\"name\": 1, \"latitude\": 2}\n",
        "[1, 2]\n",
        "\"Name\":\"Twilight\",\"Latitude\":40.5}\n{\"name\": 1}\n",
        "Twilight\",\"latitude\":40.5}\n",
        "name, latitude\n{\"name\": \"A\"}\n",
        "\u{1E}{\"name\": 1}\n",
        "<a,name>\n",
        "name\nA\n",
    ] {
        let read = read(text.as_bytes()).await;
        assert!(matches!(read, Ok((_, false)) | Err(_)), "{text:?}: {read:?}");
        assert!(!read.is_err_and(|why| why.contains("CSV without")), "{text:?}");
    }
}

#[tokio::test]
async fn csv_without_a_header_is_refused() {
    for csv in
        ["Twilight,2018-04-25 17:03:05,40.5,-74\nQilin,2018-04-25 17:03:05,40.5,-74\n", "A;40.5;1\n", "1,2\n3,4\n"]
    {
        let why = refusal(csv).await;
        assert!(why.starts_with("the document looks like CSV without a header") && why.contains("must name"), "{why}");
    }
    assert_eq!(InvalidCsv::NoHeader(String::new()).code(), "not_a_batch");
}

#[tokio::test]
async fn a_header_that_names_a_column_twice_is_refused() {
    let why = refusal("\nname,latitude, NAME \nA,1,B\n").await;
    assert_eq!(why, "the CSV header on line 2 names \"NAME\" twice (columns 1 and 3); rename or remove one of them");
    let many: Vec<_> = (0..1001).map(|column| format!("lat{column}")).chain(["name".to_owned()]).collect();
    assert!(refusal(many.join(",") + "\n" + &vec!["1"; 1002].join(",")).await.contains("more than 1000 columns"));
    assert!(refusal(format!("sep=,\nname,{}\nA,1\n", "x".repeat(257))).await.contains("more than 256 bytes"));
}

#[tokio::test]
async fn a_misplaced_quote_never_hides_rows() {
    let header = "name,latitude,distance\n";
    for (rows, expected) in [
        ("A,1,2\n\"B,1,2\nC,1,2\n", "a cell on line 3 of the CSV is not closed before line 4"),
        ("A,1,\"2\nB,1,2\n", "a cell on line 2 of the CSV is not closed before line 3"),
        ("\"A,1\n", "a cell on line 2 of the CSV is never closed"),
        ("A,1,2\nB,\"1\n\n\n", "a cell on line 3 of the CSV is never closed"),
        ("A,1,2\n\"B,1,2\n\"C\",1,2\n", "line 4 of the CSV has text after the closing quote"),
        ("\"A\"x,1,2\n", "line 2 of the CSV has text after the closing quote"),
        ("\"A \"x\" \",1,2\n", "line 2 of the CSV has text after the closing quote"),
        ("A,\"1,2\nB,3\",4\n", "a cell on line 2 of the CSV is not closed before line 3"),
        ("A,1,\"2\nB,3,4\",5,6\n", "a cell on line 2 of the CSV is not closed before line 3"),
        ("\"A\r\nB,1,2\r\n\"\n", "a cell on line 2 of the CSV is not closed before line 3"),
        ("\"A\rB,1,2\r\"\n", "a cell on line 2 of the CSV is not closed before line 3"),
    ] {
        let why = refusal(format!("{header}{rows}")).await;
        assert!(why.contains(expected), "{rows:?}: {why}");
    }
    let fine = "\"A\nB\",\"1,2,3\",\"x\ny\"\n";
    assert_eq!(records(format!("{header}{fine}")).await.len(), 1, "delimiters in another cell than the line break");
}

#[tokio::test]
async fn two_rows_on_one_line_are_refused() {
    let why = refusal("name,latitude,distance\nA,1,2\nB,1,2C,1,2\n").await;
    assert_eq!(why, "line 3 of the CSV has 5 cells where the header names 3: it looks like two rows on one line");
    assert!(refusal("name,latitude\nA,1B,\nC,2D,3,E\n").await.contains("line 3"));
}

#[tokio::test]
async fn another_character_encoding_is_refused_with_its_line() {
    let why = refusal(b"name,latitude\nA,1\nQil\xEFn,2\n").await;
    assert!(why.starts_with("line 3 of the CSV is not UTF-8 (byte 0xef)") && why.contains("iconv"), "{why}");
    assert!(refusal(b"name,gr\xFC\xDFe,latitude\nA,1,2\n").await.starts_with("line 1 of the CSV"));
}

#[tokio::test]
async fn a_row_that_is_too_long_is_one_line() {
    let giant = "é".repeat(3_000_000);
    for cell in [giant.clone(), format!("\"{giant}\""), ",".repeat(70_000)] {
        let csv = format!(",name,latitude\n0,A,1\n{cell},B,2\n2,C,3\n");
        let read = read_in(csv.as_bytes(), None, LIMITS).await;
        if cell.starts_with(',') {
            assert!(read.unwrap_err().to_string().contains("looks like two rows"));
            continue;
        }
        let (lines, _) = read.unwrap();
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(
            (lines.len(), lines[0], lines[2]),
            (3, r#"{"name":"A","latitude":"1"}"#, r#"{"name":"C","latitude":"3"}"#)
        );
        assert!(lines[1].len() > RIDE_BYTES_MAX && lines[1].len() < 2 * RIDE_BYTES_MAX, "bounded");
    }
    let empty = format!("name,latitude\nA,1{}\nB,2\n", ",".repeat(200_000));
    let (lines, _) = read_in(empty.as_bytes(), None, LIMITS).await.unwrap();
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!((lines.len(), lines[1]), (2, r#"{"name":"B","latitude":"2"}"#));
    assert!(lines[0].len() > RIDE_BYTES_MAX);
}

#[tokio::test]
async fn pieces_stay_bounded_for_long_column_names() {
    let names: Vec<_> = (0..200).map(|column| format!("latitude{column:0>240}")).collect();
    let csv = names.join(",") + "\n" + &(vec!["1"; 200].join(",") + "\n").repeat(50);
    let source = crate::source::Source::Inline { body: Bytes::from(csv), coding: None };
    let mut reading = source.open(LIMITS).await.unwrap();
    let mut lines = 0;
    while let Some(piece) = reading.next().await.unwrap() {
        lines += piece.split(|byte| *byte == b'\n').count() - 1;
        assert!(piece.len() < LIMITS.piece_bytes + 64 * 1024, "{}", piece.len());
    }
    assert_eq!(lines, 50);
}

fn cell() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z0-9 .,;|\t\"-]{0,8}", 2 => "[\r\n\"a,;]{0,6}", 1 => "\\PC{0,6}"]
}

/// Whether a row may be two rows, so that it must be refused.
fn may_be_two_rows(row: &[String], delimiter: char) -> bool {
    let delimiters = |text: &str| text.matches(delimiter).count();
    let broken: Vec<&String> = row.iter().filter(|cell| cell.contains(['\r', '\n'])).collect();
    let holds_row = |cell: &&&String| cell.split(['\r', '\n']).skip(1).any(|line| delimiters(line) + 1 >= row.len());
    let within: usize = broken.iter().map(|cell| delimiters(cell)).sum();
    broken.iter().any(|cell| holds_row(&cell)) || (!broken.is_empty() && within + 1 >= row.len())
}

proptest! {
    #[test]
    fn the_output_of_the_csv_crate_round_trips(
        rows in (1..5usize).prop_flat_map(|more| prop::collection::vec(prop::collection::vec(cell(), more + 1), 0..6)),
        delimiter in prop::sample::select(vec![b',', b';', b'\t', b'|']),
        always in any::<bool>(),
        crlf in any::<bool>(),
        piece_bytes in 1..50usize,
    ) {
        let columns = rows.first().map_or(2, Vec::len);
        let names: Vec<String> = (0..columns).map(|column| format!("lat {column}")).chain(["name".to_owned()]).collect();
        let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.into_iter().chain(["x".to_owned()]).collect()).collect();
        let mut writer = csv::WriterBuilder::new();
        writer.delimiter(delimiter);
        if always {
            writer.quote_style(csv::QuoteStyle::Always);
        }
        if crlf {
            writer.terminator(csv::Terminator::CRLF);
        }
        let mut writer = writer.from_writer(Vec::new());
        writer.write_record(&names).unwrap();
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        let csv = writer.into_inner().unwrap();
        let read = block_on(read_in(&csv, None, crate::source::Limits { piece_bytes, ..LIMITS }));
        if rows.iter().any(|row| may_be_two_rows(row, char::from(delimiter))) {
            prop_assert!(read.is_err());
            return Ok(());
        }
        // A byte order mark at the start of a row does not belong to its first cell.
        let expected: Vec<Value> = rows
            .iter()
            .map(|row| names.iter().zip(row).filter(|(_, cell)| !cell.is_empty()).map(|(name, cell)| (name.clone(), json!(cell))).collect::<serde_json::Map<_, _>>().into())
            .collect();
        let (lines, records) = read.unwrap();
        prop_assert!(records);
        let values: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        prop_assert_eq!(values, expected);
    }

    #[test]
    fn a_stray_quote_hides_no_row(
        rows in 1..6usize, row in 0..6usize, at in 0..20usize, quoted in any::<bool>(), removed in any::<bool>(),
    ) {
        let line = |row: usize| if quoted { format!("\"A, {row}\",{row},\"2\"") } else { format!("A {row},{row},2") };
        let mut lines: Vec<String> = (0..rows).map(line).collect();
        let hit = row % rows;
        let at = at % (lines[hit].len() + 1);
        if removed {
            lines[hit] = lines[hit].replacen('"', "", 1);
        } else {
            lines[hit].insert(at, '"');
        }
        let csv = format!("name,latitude,distance\n{}\n", lines.join("\n"));
        if let Ok((lines, _)) = block_on(read_in(csv.as_bytes(), None, LIMITS)) {
            prop_assert_eq!(lines.lines().count(), rows, "{}", csv);
        }
    }

    #[test]
    fn the_result_is_independent_of_the_pieces(text in "name,latitude\n[a\"\r\n,\u{FEFF}é]{0,60}", piece_bytes in 1..20usize) {
        let read = |piece_bytes| {
            let limits = crate::source::Limits { piece_bytes, ..LIMITS };
            block_on(read_in(text.as_bytes(), None, limits)).map_err(|error| error.to_string())
        };
        prop_assert_eq!(read(piece_bytes), read(1 << 20));
    }
}
