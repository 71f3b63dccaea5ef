//! The grammar of the short form, by recursive descent.

use sagitta_model::filter::Bounds;
use sagitta_model::{Condition, FieldPath, Filter, Number, PointId, Range, Scalar, Test, datetime};

use super::lexer::{Kind, Token, tokens};
use super::{FilterError, condition, only};

/// Parentheses and negations within one another at most; the server allows far fewer levels.
const MAX_DEPTH: usize = 64;

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let filter = parser.any()?;
    match parser.peek() {
        Kind::End => Ok(filter),
        other => Err(parser.error(format!("expected `and`, `or` or the end, found {}", other.describe()))),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

/// What is compared with values.
enum Compared {
    /// The values of a field.
    Values(FieldPath),
    /// How many it has.
    Count(FieldPath),
}

/// A value in a test.
enum Literal {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl Parser {
    fn peek(&self) -> &Kind {
        &self.tokens[self.next].kind
    }

    /// Takes the next token; the end is never passed.
    fn take(&mut self) -> Kind {
        let kind = self.tokens[self.next].kind.clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        kind
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_next = matches!(self.peek(), Kind::Word(next) if next.eq_ignore_ascii_case(word));
        if is_next {
            self.take();
        }
        is_next
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.peek(), Kind::Sign(next) if *next == sign);
        if is_next {
            self.take();
        }
        is_next
    }

    fn expect_sign(&mut self, sign: &str, why: &str) -> Result<(), FilterError> {
        if self.takes_sign(sign) {
            return Ok(());
        }
        Err(self.error(format!("expected `{sign}` {why}, found {}", self.peek().describe())))
    }

    /// An error at the next token.
    fn error(&self, message: String) -> FilterError {
        FilterError { at: Some(self.tokens[self.next].at), message }
    }

    /// Alternatives joined by `or`.
    fn any(&mut self) -> Result<Filter, FilterError> {
        let first = self.all()?;
        if !matches!(self.peek(), Kind::Word(word) if word.eq_ignore_ascii_case("or")) {
            return Ok(first);
        }
        let mut filter = Filter { should: vec![condition(first)], ..Filter::default() };
        while self.takes_word("or") {
            filter.should.push(condition(self.all()?));
        }
        Ok(filter)
    }

    /// Conditions joined by `and`.
    fn all(&mut self) -> Result<Filter, FilterError> {
        let first = self.unary()?;
        if !matches!(self.peek(), Kind::Word(word) if word.eq_ignore_ascii_case("and")) {
            return Ok(first);
        }
        let mut filter = Filter::default();
        join(&mut filter, first);
        while self.takes_word("and") {
            join(&mut filter, self.unary()?);
        }
        Ok(filter)
    }

    fn unary(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("this nests deeper than {MAX_DEPTH} levels")));
        }
        let filter = if self.takes_word("not") {
            negated(self.unary()?)
        } else if self.takes_sign("(") {
            let inner = self.any()?;
            self.expect_sign(")", "to close the group")?;
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn test(&mut self) -> Result<Filter, FilterError> {
        if matches!(self.peek(), Kind::Text(_) | Kind::Int(_) | Kind::Float(_)) {
            return self.chained_test();
        }
        if matches!(self.peek(), Kind::Word(word) if word == "id") {
            self.take();
            return self.id_test();
        }
        match self.compared()? {
            Compared::Values(path) => self.field_test(path),
            count => self.count_test(&count),
        }
    }

    fn compared(&mut self) -> Result<Compared, FilterError> {
        // A field may be called count; no field is followed by a parenthesis.
        let is_count = matches!(self.peek(), Kind::Word(word) if word.eq_ignore_ascii_case("count"))
            && matches!(self.tokens.get(self.next + 1).map(|token| &token.kind), Some(Kind::Sign("(")));
        if !is_count {
            return self.path().map(Compared::Values);
        }
        self.take();
        self.take();
        let path = self.path()?;
        self.expect_sign(")", "after the field whose values are counted")?;
        Ok(Compared::Count(path))
    }

    fn path(&mut self) -> Result<FieldPath, FilterError> {
        let name = match self.peek() {
            Kind::Word(word) if !is_keyword(word) => word.clone(),
            Kind::Quoted(name) => name.clone(),
            other => {
                let example = "a field, such as source = \"rust-docs\"";
                return Err(self.error(format!("expected {example}, found {}", other.describe())));
            }
        };
        let path = name.parse::<FieldPath>().map_err(|violation| self.error(violation.reason))?;
        self.take();
        Ok(path)
    }

    /// `10 <= words < 20`: one value within both bounds.
    fn chained_test(&mut self) -> Result<Filter, FilterError> {
        let (first, low) = self.bound()?;
        let first_sign = self.order("after a value that comes first, as in 10 <= words < 20")?;
        let compared = self.compared()?;
        let flipped = first_sign.replace('<', "?").replace('>', "<").replace('?', ">");
        let first_test = compared
            .ordered(&flipped, &low)
            .map_err(|message| FilterError { at: Some(first), message: message.to_owned() })?;
        if !matches!(self.peek(), Kind::Sign("<" | "<=" | ">" | ">=")) {
            return Ok(compared.passing(first_test));
        }
        let second_sign = self.order("after the field")?;
        if first_sign.chars().next() != second_sign.chars().next() {
            self.next -= 1;
            return Err(self.error(format!("expected both signs to point the same way, as in 10 <= words < 20, found {first_sign} and {second_sign}")));
        }
        let (second, high) = self.bound()?;
        let error = |message: &str| FilterError { at: Some(second), message: message.to_owned() };
        let second_test = compared.ordered(second_sign, &high).map_err(error)?;
        let both = intersection(first_test, second_test).ok_or_else(|| error("expected two numbers or two times"))?;
        Ok(compared.passing(both))
    }

    /// A value that a field is compared with by order, and where it stands.
    fn bound(&mut self) -> Result<(usize, Literal), FilterError> {
        let at = self.tokens[self.next].at;
        self.literal().map(|literal| (at, literal))
    }

    fn order(&mut self, place: &str) -> Result<&'static str, FilterError> {
        match *self.peek() {
            Kind::Sign(sign @ ("<" | "<=" | ">" | ">=")) => {
                self.take();
                Ok(sign)
            }
            ref other => Err(self.error(format!("expected <, <=, > or >= {place}, found {}", other.describe()))),
        }
    }

    fn field_test(&mut self, path: FieldPath) -> Result<Filter, FilterError> {
        let field = |test| only(Condition::Field { path: path.clone(), test });
        if self.takes_word("exists") {
            return Ok(field(Test::Exists));
        }
        if self.takes_word("is") {
            let not = self.takes_word("not");
            if !self.takes_word("null") {
                return Err(self.error(format!("expected `null`, found {}", self.peek().describe())));
            }
            // `is not null` in the sense of SQL: there is a value.
            return Ok(field(if not { Test::Exists } else { Test::IsNull }));
        }
        let not = self.takes_word("not");
        let listed = if self.takes_word("in") {
            Some(any_of(&path, self.list(Parser::literal)?))
        } else if self.takes_word("starts") {
            Some(field(Test::Prefix(self.prefix()?)))
        } else {
            None
        };
        match (listed, not) {
            (Some(filter), false) => return Ok(filter),
            (Some(filter), true) => return Ok(negated(filter)),
            (None, true) => {
                return Err(self.error(format!("expected `in` or `starts with`, found {}", self.peek().describe())));
            }
            (None, false) => {}
        }
        let sign = self.comparison(&format!("after the field `{path}`"))?;
        let (at, value) = self.bound()?;
        let unordered = |message: &str| FilterError { at: Some(at), message: message.to_owned() };
        match sign {
            "=" => Ok(equals(&path, value)),
            "!=" => Ok(negated(equals(&path, value))),
            _ => Ok(field(Test::Range(range(sign, &value).map_err(unordered)?))),
        }
    }

    /// What comes after `count(tags)`.
    fn count_test(&mut self, count: &Compared) -> Result<Filter, FilterError> {
        let sign = match *self.peek() {
            Kind::Sign(sign @ ("=" | "!=" | "<" | "<=" | ">" | ">=")) => sign,
            ref other => {
                let known = "expected =, !=, <, <=, > or >= after a count, as in count(tags) >= 2";
                return Err(self.error(format!("{known}, found {}", other.describe())));
            }
        };
        self.take();
        let (at, value) = self.bound()?;
        let error = |message: &str| FilterError { at: Some(at), message: message.to_owned() };
        let test = count.ordered(sign, &value).map_err(error)?;
        Ok(if sign == "!=" { negated(count.passing(test)) } else { count.passing(test) })
    }

    /// What comes after `starts`.
    fn prefix(&mut self) -> Result<String, FilterError> {
        if !self.takes_word("with") {
            return Err(self.error(format!("expected `with` after `starts`, found {}", self.peek().describe())));
        }
        match self.peek().clone() {
            Kind::Text(text) => {
                self.take();
                Ok(text)
            }
            other => {
                Err(self.error(format!("expected text in quotes after `starts with`, found {}", other.describe())))
            }
        }
    }

    fn id_test(&mut self) -> Result<Filter, FilterError> {
        let has = |ids| only(Condition::has_id(ids));
        let not = self.takes_word("not");
        if self.takes_word("in") {
            let filter = has(self.list(Parser::id)?);
            return Ok(if not { negated(filter) } else { filter });
        }
        match self.comparison("after `id`; the point's id has =, != and in")? {
            "=" => Ok(has(vec![self.id()?])),
            "!=" => Ok(negated(has(vec![self.id()?]))),
            sign => {
                self.next -= 1;
                let message = format!(
                    "the point's id has =, != and in, but not {sign}; a field called id is written `id` in backticks"
                );
                Err(self.error(message))
            }
        }
    }

    fn comparison(&mut self, place: &str) -> Result<&'static str, FilterError> {
        match *self.peek() {
            Kind::Sign(sign @ ("=" | "!=" | "<" | "<=" | ">" | ">=")) => {
                self.take();
                Ok(sign)
            }
            ref other => {
                let known = "=, !=, <, <=, >, >=, in, starts with, exists or is null";
                Err(self.error(format!("expected {known} {place}, found {}", other.describe())))
            }
        }
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, FilterError>) -> Result<Vec<T>, FilterError> {
        self.expect_sign("[", "to begin the list")?;
        let mut items = Vec::new();
        if self.takes_sign("]") {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.takes_sign("]") {
                return Ok(items);
            }
            self.expect_sign(",", "or `]` after a value of the list")?;
        }
    }

    fn literal(&mut self) -> Result<Literal, FilterError> {
        let literal = match self.peek() {
            Kind::Text(text) => Literal::Text(text.clone()),
            Kind::Int(n) => Literal::Int(*n),
            Kind::Float(x) => Literal::Float(*x),
            Kind::Word(word) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Kind::Word(word) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
            Kind::Word(word) => {
                return Err(self.error(format!("`{word}` is not a value; text goes in quotes: \"{word}\"")));
            }
            other => return Err(self.error(format!("expected a value, found {}", other.describe()))),
        };
        self.take();
        Ok(literal)
    }

    fn id(&mut self) -> Result<PointId, FilterError> {
        let id = match self.peek() {
            Kind::Int(n) => u64::try_from(*n).ok().map(PointId::Num),
            Kind::Text(text) => text.parse().ok(),
            _ => None,
        };
        let Some(id) = id else {
            let found = self.peek().describe();
            return Err(self.error(format!("expected an id, a number or a UUID in quotes, found {found}")));
        };
        self.take();
        Ok(id)
    }
}

impl Compared {
    /// The test that a sign and a value make of it. A count has an order only, in which `=` and `!=` are one place.
    fn ordered(&self, sign: &str, value: &Literal) -> Result<Test, &'static str> {
        if let Self::Values(_) = self {
            return range(sign, value).map(Test::Range);
        }
        let Literal::Int(n) = value else { return Err(NO_COUNT) };
        let n = u64::try_from(*n).map_err(|_| NO_COUNT)?;
        let place = Some((n, true));
        let is_place = matches!(sign, "=" | "!=");
        Ok(Test::ValuesCount(if is_place { Bounds { lower: place, upper: place } } else { bounds(sign, n) }))
    }

    fn passing(&self, test: Test) -> Filter {
        let (Self::Values(path) | Self::Count(path)) = self;
        only(Condition::Field { path: path.clone(), test })
    }
}

const NO_COUNT: &str = "a count is compared with a whole number from 0 on";

fn is_keyword(word: &str) -> bool {
    ["and", "or", "not", "in", "is", "exists", "null", "true", "false"].iter().any(|k| word.eq_ignore_ascii_case(k))
}

/// Adds a filter to those that must hold, without a level of its own where it needs none.
fn join(filter: &mut Filter, more: Filter) {
    if more.should.is_empty() {
        filter.must.extend(more.must);
        filter.must_not.extend(more.must_not);
    } else if more.must.is_empty() && more.must_not.is_empty() && filter.should.is_empty() {
        filter.should = more.should;
    } else {
        filter.must.push(condition(more));
    }
}

fn negated(mut filter: Filter) -> Filter {
    if filter.must.is_empty() && filter.should.is_empty() && filter.must_not.len() == 1 {
        return only(filter.must_not.remove(0));
    }
    Filter { must_not: vec![condition(filter)], ..Filter::default() }
}

fn equals(path: &FieldPath, value: Literal) -> Filter {
    let test = match value {
        Literal::Text(text) => Test::Match(Scalar::String(text)),
        Literal::Int(n) => Test::Match(Scalar::Int(n)),
        Literal::Bool(b) => Test::Match(Scalar::Bool(b)),
        Literal::Float(x) => {
            let bound = Some((Number::Float(x), true));
            Test::Range(Range::Number(Bounds { lower: bound, upper: bound }))
        }
    };
    only(Condition::Field { path: path.clone(), test })
}

fn any_of(path: &FieldPath, values: Vec<Literal>) -> Filter {
    let (floats, others): (Vec<_>, Vec<_>) = values.into_iter().partition(|value| matches!(value, Literal::Float(_)));
    let scalar = |value| match value {
        Literal::Text(text) => Some(Scalar::String(text)),
        Literal::Int(n) => Some(Scalar::Int(n)),
        Literal::Bool(b) => Some(Scalar::Bool(b)),
        Literal::Float(_) => None,
    };
    let test = Test::Any(others.into_iter().filter_map(scalar).collect());
    let any = Condition::Field { path: path.clone(), test };
    if floats.is_empty() {
        return only(any);
    }
    // A float equals by an interval of its own.
    let mut should: Vec<_> = floats.into_iter().map(|value| condition(equals(path, value))).collect();
    should.push(any);
    Filter { should, ..Filter::default() }
}

fn range(sign: &str, value: &Literal) -> Result<Range, &'static str> {
    match value {
        Literal::Int(n) => Ok(Range::Number(bounds(sign, Number::Int(*n)))),
        Literal::Float(x) => Ok(Range::Number(bounds(sign, Number::Float(*x)))),
        Literal::Bool(_) => Err("true and false have no order: use = or !="),
        Literal::Text(text) => match datetime::parse_micros(text) {
            Some(micros) => Ok(Range::Datetime(bounds(sign, micros))),
            None => Err("only numbers and times have an order; a time is written like \"2026-01-01T00:00:00Z\""),
        },
    }
}

fn intersection(one: Test, other: Test) -> Option<Test> {
    fn both<T>(one: Bounds<T>, other: Bounds<T>) -> Bounds<T> {
        Bounds { lower: one.lower.or(other.lower), upper: one.upper.or(other.upper) }
    }
    match (one, other) {
        (Test::Range(Range::Number(one)), Test::Range(Range::Number(other))) => {
            Some(Test::Range(Range::Number(both(one, other))))
        }
        (Test::Range(Range::Datetime(one)), Test::Range(Range::Datetime(other))) => {
            Some(Test::Range(Range::Datetime(both(one, other))))
        }
        (Test::ValuesCount(one), Test::ValuesCount(other)) => Some(Test::ValuesCount(both(one, other))),
        _ => None,
    }
}

fn bounds<T>(sign: &str, value: T) -> Bounds<T> {
    let inclusive = sign.ends_with('=');
    if sign.starts_with('>') {
        Bounds { lower: Some((value, inclusive)), upper: None }
    } else {
        Bounds { lower: None, upper: Some((value, inclusive)) }
    }
}
