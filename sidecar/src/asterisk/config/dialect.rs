//! One file in Asterisk's configuration dialect: bytes to lines that say what they mean and where
//! they stand.
//!
//! It follows `config_text_file_load` and `process_text_line` of Asterisk 22's main/config.c:
//! nested comments `;-- --;`, escaped semicolons, over-long lines skipped, options of a header only
//! directly after `]`. The dialect has no continuation of lines: a backslash at the end of a line
//! is part of the value. Files are never rendered from what is parsed: the bytes of a line stay as
//! they are, or the whole line is blanked. What several files mean together is `tree.rs`.

use std::ops::Range;

/// Asterisk's buffer is 8192 bytes, and a line that does not fit with its end is skipped.
const LINE_LIMIT_BYTES: usize = 8191;
/// Asterisk's own limit of nested comments.
const NESTED_COMMENTS_LIMIT: i32 = 128;
/// What some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What a line says once comments are taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// Nothing: empty, a comment, or something that Asterisk passes over.
    Nothing,
    /// `[name](options)`.
    Header(Header),
    /// A head without its closing bracket, for which Asterisk refuses the file.
    Unclosed,
    /// `name = value`, `name => value` or `name += value`.
    Variable {
        /// Left of the sign, as written.
        name: String,
        /// Right of the sign, stripped of blanks.
        value: String,
    },
    /// `#include` or `#tryinclude`.
    Include {
        /// The file or pattern, without its quotes.
        name: String,
        /// Whether its absence is no error.
        optional: bool,
    },
    /// `#exec`: what it prints cannot be known here.
    Exec {
        /// The command.
        command: String,
    },
}

/// The head of a section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Header {
    /// Between the brackets.
    pub(super) name: String,
    /// `(!)`: only there to be inherited from.
    pub(super) is_template: bool,
    /// `(+filter)`: adds to a section that exists.
    pub(super) addition: Option<String>,
    /// The sections that it inherits from.
    pub(super) bases: Vec<String>,
}

/// One physical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its bytes in the file, with the line end.
    pub(super) bytes: Range<usize>,
    /// How deep in `;--` it begins.
    pub(super) depth_before: i32,
    /// How deep in `;--` it ends.
    pub(super) depth_after: i32,
    /// What it says.
    pub(super) statement: Statement,
}

/// All lines of a file, in order and without gaps.
pub(super) fn parse(text: &[u8]) -> Vec<Line> {
    let mut depth = 0;
    let mut start = 0;
    text.split_inclusive(|&byte| byte == b'\n')
        .map(|raw| {
            let bytes = start..start + raw.len();
            let code = if bytes.start == 0 {
                raw.strip_prefix(BYTE_ORDER_MARK).unwrap_or(raw)
            } else {
                raw
            };
            start = bytes.end;
            let depth_before = depth;
            let code = if raw.len() > LINE_LIMIT_BYTES {
                None
            } else {
                without_comments(code, &mut depth)
            };
            let statement = code.map_or(Statement::Nothing, |code| statement_of(&code));
            Line {
                bytes,
                depth_before,
                depth_after: depth,
                statement,
            }
        })
        .collect()
}

/// What stands in the place of a line that is taken out: the comments that it closed and opened,
/// and its line end, so that the numbers of all other lines stay as the user knows them.
pub(super) fn blanked(line: &Line, text: &[u8]) -> Vec<u8> {
    let mut blank = comment_marks(line.depth_before, line.depth_after);
    if text[line.bytes.clone()].ends_with(b"\n") {
        blank.push(b'\n');
    }
    blank
}

/// Adds statements at the end of a file, outside of any comment that was left open there. Nothing
/// to add leaves it as it is.
pub(super) fn append(text: &mut Vec<u8>, lines: &[Line], addition: &str) {
    if addition.is_empty() {
        return;
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend(comment_marks(
        lines.last().map_or(0, |line| line.depth_after),
        0,
    ));
    text.extend(b"\n; Added by pbx-ha:\n");
    text.extend(addition.as_bytes());
}

/// What leads from one depth of comments to another; a depth below zero is a comment as well.
fn comment_marks(from: i32, to: i32) -> Vec<u8> {
    let times = usize::try_from(from.abs_diff(to)).expect("a depth is far below this");
    if from > to {
        b"--; ".repeat(times)
    } else {
        b";-- ".repeat(times)
    }
}

/// The code of a line, or nothing if it lies wholly inside a comment. `depth` is carried from line
/// to line; it can go below zero, as it does in Asterisk.
fn without_comments(line: &[u8], depth: &mut i32) -> Option<Vec<u8>> {
    let at = |index: usize| line.get(index).copied().unwrap_or(0);
    let mut code = (*depth == 0).then(Vec::new);
    let mut copying = *depth == 0;
    // Marks do not reach back over what has been consumed.
    let mut consumed = 0;
    let mut index = 0;
    while index < line.len() {
        let byte = line[index];
        if byte != b';' {
            push(&mut code, copying, byte);
        } else if index > consumed && at(index - 1) == b'\\' {
            if copying && let Some(code) = code.as_mut() {
                code.pop();
            }
            push(&mut code, copying, byte);
            consumed = index + 1;
        } else if at(index + 1) == b'-' && at(index + 2) == b'-' && at(index + 3) != b'-' {
            *depth = (*depth + 1).min(NESTED_COMMENTS_LIMIT);
            copying = false;
            index += 2;
            consumed = index + 1;
        } else if index >= consumed + 2 && at(index - 1) == b'-' && at(index - 2) == b'-' {
            *depth -= 1;
            consumed = index + 1;
            if *depth == 0 {
                code.get_or_insert_default();
                copying = true;
            } else {
                push(&mut code, copying, byte);
            }
        } else if *depth == 0 {
            break;
        } else {
            push(&mut code, copying, byte);
            consumed = index + 1;
        }
        index += 1;
    }
    code
}

fn push(code: &mut Option<Vec<u8>>, copying: bool, byte: u8) {
    if copying && let Some(code) = code.as_mut() {
        code.push(byte);
    }
}

fn statement_of(code: &[u8]) -> Statement {
    let code = String::from_utf8_lossy(code);
    let code = strip(&code);
    match code.as_bytes().first() {
        None => Statement::Nothing,
        Some(b'[') => header_of(code).map_or(Statement::Unclosed, Statement::Header),
        Some(b'#') => directive_of(&code[1..]),
        Some(_) => variable_of(code),
    }
}

fn header_of(code: &str) -> Option<Header> {
    let (name, rest) = code[1..].split_once(']')?;
    let mut header = Header {
        name: name.to_owned(),
        ..Header::default()
    };
    // Asterisk looks for options directly after the bracket, not after a blank.
    let Some(options) = rest.strip_prefix('(') else {
        return Some(header);
    };
    for option in options.split_once(')')?.0.split(',') {
        match option.strip_prefix('+') {
            _ if option == "!" => header.is_template = true,
            Some(filter) => header.addition = Some(filter.to_owned()),
            None => header.bases.push(option.to_owned()),
        }
    }
    Some(header)
}

fn directive_of(code: &str) -> Statement {
    let (word, argument) = code
        .split_once(|char: char| char <= ' ')
        .unwrap_or((code, ""));
    let argument = unquoted(strip(argument)).to_owned();
    match word.to_ascii_lowercase().as_str() {
        _ if argument.is_empty() => Statement::Nothing,
        "include" => Statement::Include {
            name: argument,
            optional: false,
        },
        "tryinclude" => Statement::Include {
            name: argument,
            optional: true,
        },
        "exec" => Statement::Exec { command: argument },
        _ => Statement::Nothing,
    }
}

fn unquoted(argument: &str) -> &str {
    for (open, close) in [('"', '"'), ('<', '>')] {
        if let Some(inner) = argument
            .strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
        {
            return inner;
        }
    }
    argument
}

fn variable_of(code: &str) -> Statement {
    let code = code.strip_prefix('\\').unwrap_or(code);
    let Some((name, value)) = code.split_once('=') else {
        return Statement::Nothing;
    };
    let name = strip(name.strip_suffix('+').unwrap_or(name)).to_owned();
    let value = strip(value.strip_prefix('>').unwrap_or(value)).to_owned();
    if name.is_empty() {
        Statement::Nothing
    } else {
        Statement::Variable { name, value }
    }
}

/// As Asterisk strips: every control character counts as a blank.
fn strip(text: &str) -> &str {
    text.trim_matches(|char: char| char <= ' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variable(name: &str, value: &str) -> Statement {
        Statement::Variable {
            name: name.into(),
            value: value.into(),
        }
    }

    fn header(name: &str) -> Header {
        Header {
            name: name.into(),
            ..Header::default()
        }
    }

    fn check(text: &str, expected: &[Statement]) {
        let said: Vec<_> = parse(text.as_bytes())
            .into_iter()
            .map(|line| line.statement)
            .filter(|statement| *statement != Statement::Nothing)
            .collect();
        assert_eq!(said, expected, "{text:?}");
    }

    #[test]
    fn statements_are_read_as_asterisk_reads_them() {
        check("type=registration\n", &[variable("type", "registration")]);
        check(
            "  exten => 100,1,Answer()  \r\n",
            &[variable("exten", "100,1,Answer()")],
        );
        check("allow += ulaw", &[variable("allow", "ulaw")]);
        check("\u{feff}[a]\n", &[Statement::Header(header("a"))]);
        check("no sign here\n=nameless\n#\n#include\n#unknown x\n", &[]);
        check(
            "[unclosed\n[a](unclosed\n",
            &[Statement::Unclosed, Statement::Unclosed],
        );
        check("same => n,Set(X=1)", &[variable("same", "n,Set(X=1)")]);
    }

    #[test]
    fn headers_carry_templates_additions_and_bases() {
        check(
            "[t](!)",
            &[Statement::Header(Header {
                is_template: true,
                ..header("t")
            })],
        );
        check(
            "[a](t,u)",
            &[Statement::Header(Header {
                bases: vec!["t".into(), "u".into()],
                ..header("a")
            })],
        );
        check(
            "[a](+)",
            &[Statement::Header(Header {
                addition: Some(String::new()),
                ..header("a")
            })],
        );
        let filtered = Header {
            addition: Some("type=auth".into()),
            ..header("a")
        };
        check("[a](+type=auth)", &[Statement::Header(filtered)]);
        check("[a] (t)", &[Statement::Header(header("a"))]);
    }

    #[test]
    fn directives_lose_their_quotes() {
        let include = |name: &str, optional| Statement::Include {
            name: name.into(),
            optional,
        };
        check("#include \"a b.conf\"\n", &[include("a b.conf", false)]);
        check("#INCLUDE <a.conf> ; why\n", &[include("a.conf", false)]);
        check("#tryinclude\ta.conf\n", &[include("a.conf", true)]);
        check(
            "#exec /bin/x -y\n",
            &[Statement::Exec {
                command: "/bin/x -y".into(),
            }],
        );
    }

    #[test]
    fn comments_hide_what_asterisk_does_not_see() {
        check("a=1 ; b\n;c=2\n", &[variable("a", "1")]);
        check("a=1\\;2 ; b\n", &[variable("a", "1;2")]);
        check(";-- a=1\nb=2\n--; c=3\n", &[variable("c", "3")]);
        check("a=1;-- hidden --;2\n", &[variable("a", "12")]);
        check(
            ";-- one\n;-- two --;\na=1\n--;\nb=2\n",
            &[variable("b", "2")],
        );
        check(
            ";---- a ruler, no comment block\na=1\n",
            &[variable("a", "1")],
        );
        check(
            "; a line comment ;-- opens nothing\na=1\n",
            &[variable("a", "1")],
        );
    }

    #[test]
    fn overlong_lines_are_passed_over() {
        let long = format!("a={}\nb=1\n", "x".repeat(LINE_LIMIT_BYTES));
        check(&long, &[variable("b", "1")]);
    }

    #[test]
    fn a_blanked_line_keeps_the_comments_it_opened_and_closed() {
        let text = b"a=1 ;-- from here\nhidden\n--; b=2\nc=3\n";
        let lines = parse(text);
        let without: Vec<u8> = [
            blanked(&lines[0], text),
            text[lines[1].bytes.clone()].to_vec(),
            blanked(&lines[2], text),
            text[lines[3].bytes.clone()].to_vec(),
        ]
        .concat();
        check(
            std::str::from_utf8(&without).unwrap(),
            &[variable("c", "3")],
        );
        assert_eq!(parse(&without).len(), lines.len());
    }

    proptest! {
        #[test]
        fn any_bytes_are_covered_line_by_line(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let covered: Vec<u8> = parse(&text).iter().flat_map(|line| text[line.bytes.clone()].to_vec()).collect();
            prop_assert_eq!(covered, text);
        }

        #[test]
        fn marks_in_any_order_never_panic(text in "[;\\\\\\-\\[\\]()+!=#>a\n ]{0,200}") {
            let lines = parse(text.as_bytes());
            for line in &lines {
                blanked(line, text.as_bytes());
            }
        }
    }
}
