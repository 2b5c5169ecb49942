//! Edits change what they should and nothing else.

use dockerfile::edit::{EditError, set_base, set_value};

#[test]
fn values() {
    for (text, name, value, expected) in [
        ("FROM a\nENV A=1 B=2\n# x\n", "B", "3", "FROM a\nENV A=1 B=3\n# x\n"),
        ("FROM a\nENV  A=1 \\\n  # c\n     B=\"2\"\n", "B", "3", "FROM a\nENV  A=1 \\\n  # c\n     B=\"3\"\n"),
        ("FROM a\nENV A='1'\n", "A", "$x", "FROM a\nENV A='$x'\n"),
        ("FROM a\nENV A=1\n", "A", "$x y", "FROM a\nENV A=\"\\$x y\"\n"),
        ("FROM a\nENV A=1\n", "A", "", "FROM a\nENV A=\n"),
        ("FROM a\nENV A=\n", "A", "1", "FROM a\nENV A=1\n"),
        ("FROM a\nENV A 1\n", "A", "2", "FROM a\nENV A 2\n"),
        ("ARG V=1\nFROM a:$V\nARG V\n", "V", "2", "ARG V=2\nFROM a:$V\nARG V\n"),
        ("ARG V=1\r\nFROM a\r\nARG V=1\r\n", "V", "2", "ARG V=2\r\nFROM a\r\nARG V=2\r\n"),
        ("FROM a\nARG V\n", "V", "2", "FROM a\nARG V=2\n"),
        ("FROM a\nARG V W\n", "V", "2", "FROM a\nARG V=2 W\n"),
        ("# escape=`\nFROM a\nENV A=1\n", "A", "c:\\\"x", "# escape=`\nFROM a\nENV A=\"c:\\`\"x\"\n"),
    ] {
        assert_eq!(set_value(text, name, value).as_deref(), Ok(expected), "{text:?} {name} {value}");
    }
    assert_eq!(set_value("FROM a", "A", "1"), Err(EditError::NoSuchName("A".into())));
    assert_eq!(set_value("FRM a", "A", "1"), Err(EditError::Invalid));
    assert_eq!(set_value("FROM a\nARG A", "A", "1\n2"), Err(EditError::Unwritable("1\n2".into())));
}

#[test]
fn bases() {
    let text = "# x\nFROM  --platform=$P  a:1  AS  b # no\n".replace(" # no", "");
    let expected = "# x\nFROM  --platform=$P  c:2@sha256:0  AS  b\n";
    assert_eq!(set_base(&text, 0, "c:2@sha256:0").as_deref(), Ok(expected));
    assert_eq!(set_base(&text, 1, "c"), Err(EditError::NoSuchStage(1)));
    assert_eq!(set_base(&text, 0, "c d"), Err(EditError::Unwritable("c d".into())));
    assert_eq!(set_base(&text, 0, ""), Err(EditError::Unwritable(String::new())));
}
