//! From tokens to a tree: a Pratt parser with CEL's precedences.

use super::SOURCE_BYTES_MAX;
use super::error::{Error, Span};
use super::lexer::{Token, tokens};

/// Deepest nesting of a filter.
const DEPTH_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) expr: Expr,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) enum Expr {
    Bool(bool),
    Int(i64),
    Text(String),
    Name(String),
    List(Vec<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary {
        operator: &'static str,
        left: Box<Node>,
        right: Box<Node>,
    },
    Conditional {
        test: Box<Node>,
        yes: Box<Node>,
        no: Box<Node>,
    },
    Index {
        target: Box<Node>,
        key: Box<Node>,
    },
    /// `name(arguments)` or `target.name(arguments)`.
    Call {
        target: Option<Box<Node>>,
        name: String,
        at: Span,
        arguments: Vec<Node>,
    },
}

/// Parses a whole source.
pub(super) fn parse(source: &str) -> Result<Node, Error> {
    if source.len() > SOURCE_BYTES_MAX {
        let span = Span { start: 0, end: 1 };
        return Err(Error::new(
            source,
            span,
            format!("filter longer than {SOURCE_BYTES_MAX} bytes"),
            "split the flow in two",
        ));
    }
    let mut parser = Parser { source, tokens: tokens(source)?, at: 0, depth: 0 };
    let node = parser.expression(0)?;
    match parser.peek() {
        (Token::End, _) => Ok(node),
        (_, span) => Err(parser.error(
            span,
            "unexpected text after the condition",
            "join conditions with `&&` or `||`",
        )),
    }
}

/// The operands of the outermost `&&`.
pub(super) fn conjuncts(node: &Node) -> Vec<&Node> {
    match &node.expr {
        Expr::Binary { operator: "&&", left, right } => {
            let mut all = conjuncts(left);
            all.extend(conjuncts(right));
            all
        }
        _ => vec![node],
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: usize,
}

const UNARY: u8 = 7;

fn precedence(operator: &str) -> Option<u8> {
    match operator {
        "?" => Some(1),
        "||" => Some(2),
        "&&" => Some(3),
        "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" => Some(4),
        "+" | "-" => Some(5),
        _ => None,
    }
}

impl Parser<'_> {
    fn peek(&self) -> (&Token, Span) {
        let (token, span) = &self.tokens[self.at];
        (token, *span)
    }

    fn advance(&mut self) -> (Token, Span) {
        let taken = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1); // `End` stays
        taken
    }

    fn takes(&mut self, symbol: &'static str) -> bool {
        let found = matches!(self.peek().0, Token::Symbol(s) if *s == symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, symbol: &'static str) -> Result<Span, Error> {
        let span = self.peek().1;
        if self.takes(symbol) { Ok(span) } else { Err(self.error(span, format!("expected `{symbol}`"), "")) }
    }

    fn error(&self, span: Span, message: impl Into<String>, help: &str) -> Error {
        Error::new(self.source, span, message, help)
    }

    /// An expression whose operators all bind at least as tightly as `least`.
    fn expression(&mut self, least: u8) -> Result<Node, Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(
                self.peek().1,
                format!("nested more than {DEPTH_MAX} deep"),
                "simplify the condition",
            ));
        }
        let mut left = self.unary()?;
        while let Some((operator, binds)) = self.operator().filter(|(_, binds)| *binds >= least) {
            self.advance();
            left =
                if operator == "?" { self.conditional(left)? } else { self.binary(left, operator, binds)? };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operator(&self) -> Option<(&'static str, u8)> {
        let symbol = match self.peek().0 {
            Token::Symbol(symbol) => symbol,
            Token::Name(name) if name == "in" => "in",
            _ => return None,
        };
        precedence(symbol).map(|binds| (symbol, binds))
    }

    fn binary(&mut self, left: Node, operator: &'static str, binds: u8) -> Result<Node, Error> {
        let right = self.expression(binds + 1)?;
        let span = left.span.to(right.span);
        Ok(Node { expr: Expr::Binary { operator, left: left.into(), right: right.into() }, span })
    }

    fn conditional(&mut self, test: Node) -> Result<Node, Error> {
        let yes = self.expression(1)?;
        self.expect(":")?;
        let no = self.expression(1)?;
        let span = test.span.to(no.span);
        Ok(Node { expr: Expr::Conditional { test: test.into(), yes: yes.into(), no: no.into() }, span })
    }

    fn unary(&mut self) -> Result<Node, Error> {
        let start = self.peek().1;
        if self.takes("!") {
            let operand = self.expression(UNARY)?;
            let span = start.to(operand.span);
            return Ok(Node { expr: Expr::Not(operand.into()), span });
        }
        if self.takes("-") {
            let operand = self.expression(UNARY)?;
            let span = start.to(operand.span);
            return Ok(Node { expr: Expr::Negate(operand.into()), span });
        }
        let primary = self.primary()?;
        self.postfix(primary)
    }

    fn primary(&mut self) -> Result<Node, Error> {
        let (token, span) = self.advance();
        let expr = match token {
            Token::Int(value) => Expr::Int(value),
            Token::Text(value) => Expr::Text(value),
            Token::Symbol("(") => return self.parenthesised(span),
            Token::Symbol("[") => {
                let (items, end) = self.list("]")?;
                return Ok(Node { expr: Expr::List(items), span: span.to(end) });
            }
            Token::Name(name) if name == "true" || name == "false" => Expr::Bool(name == "true"),
            Token::Name(name) if self.takes("(") => {
                let (arguments, end) = self.list(")")?;
                return Ok(Node {
                    expr: Expr::Call { target: None, name, at: span, arguments },
                    span: span.to(end),
                });
            }
            Token::Name(name) => Expr::Name(name),
            Token::End => {
                return Err(self.error(
                    span,
                    "the condition ends here",
                    "a variable, a text or a number is missing",
                ));
            }
            Token::Symbol(symbol) => {
                return Err(self.error(
                    span,
                    format!("unexpected `{symbol}`"),
                    "a variable, a text or a number belongs here",
                ));
            }
        };
        Ok(Node { expr, span })
    }

    /// The span takes in the parentheses, so that a clause is shown as it was written.
    fn parenthesised(&mut self, open: Span) -> Result<Node, Error> {
        let inner = self.expression(0)?;
        let close = self.expect(")")?;
        Ok(Node { span: open.to(close), ..inner })
    }

    fn list(&mut self, close: &'static str) -> Result<(Vec<Node>, Span), Error> {
        let mut items = Vec::new();
        loop {
            let span = self.peek().1;
            if self.takes(close) {
                return Ok((items, span));
            }
            items.push(self.expression(0)?);
            let span = self.peek().1;
            if self.takes(close) {
                return Ok((items, span));
            }
            if !self.takes(",") {
                return Err(self.error(span, format!("expected `,` or `{close}`"), ""));
            }
        }
    }

    fn postfix(&mut self, mut node: Node) -> Result<Node, Error> {
        loop {
            if self.takes(".") {
                let (token, at) = self.advance();
                let Token::Name(name) = token else {
                    return Err(self.error(
                        at,
                        "expected the name of a method",
                        "for instance `.contains(\"text\")`",
                    ));
                };
                if !self.takes("(") {
                    let help =
                        "methods take parentheses; keys of a map stand in brackets: sd[\"id\"][\"name\"]";
                    return Err(self.error(at, format!("`.{name}` is not called"), help));
                }
                let (arguments, end) = self.list(")")?;
                let span = node.span.to(end);
                node = Node { expr: Expr::Call { target: Some(node.into()), name, at, arguments }, span };
            } else if self.takes("[") {
                let key = self.expression(0)?;
                let span = node.span.to(self.expect("]")?);
                node = Node { expr: Expr::Index { target: node.into(), key: key.into() }, span };
            } else {
                return Ok(node);
            }
        }
    }
}
