use super::*;

fn found(text: &str) -> Vec<String> {
    let file = TextFile { path: "proto/x.proto".to_owned(), text: text.to_owned() };
    check(&file).iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
}

#[test]
fn everything_declared_is_explained() {
    let bare = "\
syntax = \"proto3\";
package x.v1;
service Points {
  rpc Get(GetRequest) returns (GetResponse);
}
message GetRequest {
  string name = 1;
  map<string, Value> payload = 2 [deprecated = true];
  oneof id {
    uint64 num = 3;
  }
  reserved 4, 5;
}
enum Kind {
  KIND_UNSPECIFIED = 0;
}
";
    assert_eq!(
        found(bare),
        [
            "3: service `Points` without a comment",
            "4: rpc `Get` without a comment",
            "6: message `GetRequest` without a comment",
            "7: field `name` without a comment",
            "8: field `payload` without a comment",
            "9: oneof `id` without a comment",
            "10: field `num` without a comment",
            "14: enum `Kind` without a comment",
            "15: enum value `KIND_UNSPECIFIED` without a comment",
        ]
    );
}

#[test]
fn comments_above_or_beside_explain() {
    let text = "\
// The file.

import \"other.proto\";

// What it is.
message A {
  // The name; 1 to 255 bytes: \"a\".
  string name = 1 [
    json_name = \"n;{\"
  ];
  bytes raw = 2; // Little-endian.
  // Long, with a body.
  rpc Get(stream A)
      returns (A) {
    option deadline = 5;
  }
}
// Nothing.
message Empty {}
";
    assert_eq!(found(text), [""; 0]);
}

#[test]
fn a_comment_speaks_of_one_thing() {
    assert_eq!(
        found("// Both?\nmessage A {\n  string a = 1; // First.\n  string b = 2;\n}\n"),
        ["4: field `b` without a comment"]
    );
    assert_eq!(found("// A section.\n\nmessage A {}\n"), ["3: message `A` without a comment"]);
}
