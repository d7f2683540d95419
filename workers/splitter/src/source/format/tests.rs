use super::*;
use proptest::prelude::*;

/// The refusal of a document that starts with these bytes.
fn refusal(start: &[u8]) -> String {
    let head = [start, &[0; 600]].concat();
    match recognise(&head) {
        Format::Unsupported(unsupported) => unsupported.to_string(),
        other => panic!("{start:?}: {other:?}"),
    }
}

#[test]
fn binary_formats_are_refused_by_name_with_advice() {
    for (start, name, advice) in [
        (&b"BZh91AY&SY"[..], "bzip2", "decompress"),
        (b"\xFD7zXZ\0", "xz", "decompress"),
        (b"7z\xBC\xAF\x27\x1C", "7z", "unpack"),
        (b"Rar!\x1A\x07\x01\0", "RAR", "unpack"),
        (b"\x04\x22\x4D\x18", "lz4", "decompress"),
        (b"\xFF\x06\0\0sNaPpY", "snappy", "decompress"),
        (b"\x1F\x9D\x90", ".Z", "decompress"),
        (b"Obj\x01", "Avro", "JSON"),
        (b"ORC", "ORC", "JSON"),
        (b"ARROW1\0\0", "Feather", "JSON"),
        (b"FEA1", "Feather", "JSON"),
        (b"PARE", "encrypted Parquet", "without encryption"),
        (b"SQLite format 3\0", "SQLite", "sqlite3 -header -csv"),
        (b"\x80\x04\x95", "pickle", "json.dump"),
        (b"\x80\x02}q\0", "pickle", "json.dump"),
        (b"%PDF-1.7\n", "PDF", "JSON"),
        (b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", "xls", "CSV UTF-8"),
        (b"\x89HDF\r\n\x1A\n", "HDF5", "JSON"),
        (b"\xAC\xED\0\x05sr", "Java", "converter"),
        (b"\xFF\xFE\0\0[\0\0\0", "UTF-32", "iconv -f UTF-32LE -t UTF-8"),
        (b"\0\0\xFE\xFF\0\0\0[", "UTF-32", "iconv -f UTF-32BE -t UTF-8"),
    ] {
        let refusal = refusal(start);
        assert!(refusal.contains(name) && refusal.contains(advice), "{refusal}");
    }
    let mut tar = vec![0; 600];
    tar[..10].copy_from_slice(b"rides.json");
    tar[257..262].copy_from_slice(b"ustar");
    assert!(matches!(recognise(&tar), Format::Unsupported(unsupported) if unsupported.name == "a tar archive"));
}

#[test]
fn a_zip_archive_is_named_by_its_content() {
    let zip = |name: &str, rest: &str| {
        let mut bytes = b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(name.as_bytes());
        bytes.extend(rest.as_bytes());
        refusal(&bytes)
    };
    for (name, rest, expected) in [
        ("rides.json", "", "a zip archive with \"rides.json\" in it, which is not read: unzip it"),
        ("[Content_Types].xml", "…xl/workbook.xml", "an Excel workbook (xlsx), which is not read: save the sheet"),
        ("xl/workbook.xml", "", "an Excel workbook (xlsx)"),
        ("[Content_Types].xml", "…word/document.xml", "a Word document (docx)"),
        ("mimetype", "application/vnd.oasis.opendocument.spreadsheet", "an OpenDocument spreadsheet (ods)"),
        ("latitude.npy", "", "a NumPy archive (npz)"),
    ] {
        let refusal = zip(name, rest);
        assert!(refusal.contains(expected), "{refusal}");
    }
    assert!(refusal(b"PK\x05\x06").contains("zip"), "an empty one");
    assert!(refusal(b"PK\x03\x04").contains("zip"), "a cut one");
}

#[test]
fn texts_that_are_neither_json_nor_csv_are_refused_by_name() {
    for (text, name) in [
        ("<!DOCTYPE html><html>", "an HTML page"),
        ("\u{FEFF} \n<html lang=\"en\">", "an HTML page"),
        ("<?xml version=\"1.0\"?>\n<rides><ride/></rides>", "XML"),
        (
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
            "an error document of an object store (AccessDenied)",
        ),
        (
            "\u{FEFF}<?xml?><Error><Code>BlobNotFound</Code></Error>",
            "an error document of an object store (BlobNotFound)",
        ),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n",
            "a Git LFS pointer, not the file it stands for",
        ),
        ("\u{FEFF}version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file it stands for"),
        ("-----BEGIN PGP MESSAGE-----\n", "an encrypted or signed text (PEM)"),
        ("eyJuYW1lIjogIlR3aWxpZ2h0In0=\n", "JSON in base64"),
        ("W3sibmFtZSI6ICJUd2lsaWdodCJ9XQ==", "JSON in base64"),
        ("H4sIAAAAAAAAA4uuVkpUslIw1FFQSlKyUqqtBQBnQ2qZEQAAAA==", "gzip in base64"),
    ] {
        match recognise(text.as_bytes()) {
            Format::Unsupported(unsupported) => assert_eq!(unsupported.name, name),
            other => panic!("{text}: {other:?}"),
        }
    }
    for text in ["---\nrides:\n  - name: x\n", "- name: Twilight\n  latitude: 40.5\n", "# rides\nrides:\n  - name: x\n"]
    {
        assert!(unknown_text(text.as_bytes()).is_some(), "{text}");
    }
    for text in ["data: {\"a\": 1}\n\ndata: {\"a\": 2}\n\n", ": ping\n\nevent: ride\nid: 7\ndata:[1]\n"] {
        let unsupported = unknown_text(text.as_bytes()).unwrap();
        assert!(
            unsupported.name.contains("server-sent events") && unsupported.advice.contains("sed -n"),
            "{unsupported}"
        );
    }
    for text in ["", "hello", "hello: world", "{\"a\": 1}", "[1]", "\"a\": 1,\n\"b\": 2", "-1", "- - -", "a,b\n1,2"] {
        assert!(unknown_text(text.as_bytes()).is_none(), "{text}");
        assert_eq!(recognise(text.as_bytes()), Format::Text, "{text}");
    }
}

#[test]
fn a_text_is_not_mistaken_for_a_binary_format() {
    for text in
        ["ORC,latitude\n1,2\n", "PARENT,latitude\n", "BZh,latitude\n", "LZIP;a", "eyJ", "eyJohn,latitude\n", "< 3\n"]
    {
        assert_eq!(recognise(text.as_bytes()), Format::Text, "{text}");
    }
}

#[test]
fn utf_16_and_utf_32_without_a_mark_are_recognised() {
    let other_scripts = [
        "[{\"name\": \"Тимофей Александрович Ковалевский\", \"breed\": \"Единорог обыкновенный лесной\"}]",
        "[{\"name\": \"トワイライト・スパークル\u{3000}ユニコーン\", \"breed\": \"麒麟\"}]",
        "имя,широта,name,latitude\nЗвезда,1,x,2\n",
        "[{\"name\": \"🦄🦄🦄🦄🦄🦄🦄🦄🦄🦄\"}]",
    ];
    for text in ["[{\"name\": \"Twilight\"}]", "name,latitude\nX,1\n", "[]"].into_iter().chain(other_scripts) {
        let utf16 = |big: bool| -> Vec<u8> {
            text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        let utf32 = |big: bool| -> Vec<u8> {
            text.chars().map(u32::from).flat_map(|c| if big { c.to_be_bytes() } else { c.to_le_bytes() }).collect()
        };
        for (bytes, expected) in [
            (utf16(false), "iconv -f UTF-16LE"),
            (utf16(true), "iconv -f UTF-16BE"),
            (utf32(false), "iconv -f UTF-32LE"),
            (utf32(true), "iconv -f UTF-32BE"),
        ] {
            match recognise(&bytes) {
                Format::Unsupported(unsupported) => assert!(unsupported.advice.contains(expected), "{unsupported}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
    assert_eq!(recognise(b"[\0\0\0\0\0\0\0"), recognise(b"[\0\0\0\0\0\0\0"), "short and strange");
    for bytes in
        [&b"{\"a\0\":1}"[..], b"[\0\0", "[\"Тимофей Александрович\"]".as_bytes(), b"a\0b\0\x01\0c\0d\0e\0f\0g\0"]
    {
        assert_eq!(recognise(bytes), Format::Text, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn json_and_csv_are_never_refused(text in "[\\[{][ -~]{0,80}|[a-z]{1,8},[a-z]{1,8}\n[ -~]{0,40}") {
        prop_assert_eq!(recognise(text.as_bytes()), Format::Text);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = (recognise(&bytes), starts_like(&bytes), unknown_text(&bytes));
    }
}
