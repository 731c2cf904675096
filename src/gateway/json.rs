//! One strict pass over a JSON text that hands out what is asked for and skips the rest.
//!
//! Every byte of a request is looked at once: syntax, depth and number of values are checked while the few members that
//! the gateway needs are picked out as slices of the text. `serde_json` would need two passes for that (one to find where
//! an event ends, one to read it), does not bound what it skips, and the gateway spends most of its own time here. What
//! this pass accepts, `serde_json` accepts (a property test compares them), so no later stage meets a text that it
//! cannot read: that is why a text is a `&str`, and why [`super::repair`] runs before.

use std::borrow::Cow;

/// What a text may cost later stages, which build it up in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Objects and arrays inside each other.
    pub(super) depth: usize,
    /// Members and elements, all together.
    pub(super) values: usize,
}

/// Why a text was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonError {
    /// It is not JSON.
    Syntax,
    /// Objects and arrays inside each other, beyond [`Bounds::depth`].
    TooDeep,
    /// More values than [`Bounds::values`].
    TooManyValues,
}

type Result<T> = std::result::Result<T, JsonError>;

/// A string as it stands between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// What the string says.
    pub(super) fn decode(self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        // Rare enough that finding the quotes again costs nothing. A lone surrogate is the only thing that the pass accepts
        // and serde refuses; `repair` has replaced those.
        match serde_json::from_str(&format!("\"{}\"", self.raw)) {
            Ok(text) => Cow::Owned(text),
            Err(_) => Cow::Borrowed(self.raw),
        }
    }
}

/// A value that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Scalar<'a> {
    /// Not there, or `null`.
    #[default]
    Absent,
    /// A string.
    Text(Text<'a>),
    /// A number, `true`, `false`, an object or an array, as written.
    Other(&'a str),
}

/// A position in a text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth_left: usize,
    values_left: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str, bounds: Bounds) -> Self {
        Self {
            text,
            at: 0,
            depth_left: bounds.depth,
            values_left: bounds.values,
        }
    }

    /// Allows `values` more values from here on.
    pub(super) fn refill(&mut self, values: usize) {
        self.values_left = values;
    }

    /// The byte that the next value begins with; white space before it is passed.
    #[inline]
    pub(super) fn next(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Nothing but white space may be left.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.next() {
            None => Ok(()),
            Some(_) => Err(JsonError::Syntax),
        }
    }

    /// Reads a value with `read` and returns it with the value's own text.
    pub(super) fn spanned<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<(T, &'a str)> {
        self.next();
        let from = self.at;
        let value = read(self)?;
        Ok((value, &self.text[from..self.at]))
    }

    /// Reads an object; `member` must read each member's value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Key<'a>) -> Result<()>,
    ) -> Result<()> {
        self.enter(b'{')?;
        if self.next() == Some(b'}') {
            return self.leave();
        }
        loop {
            self.count()?;
            if self.next() != Some(b'"') {
                return Err(JsonError::Syntax);
            }
            let key = self.string()?;
            if self.next() != Some(b':') {
                return Err(JsonError::Syntax);
            }
            self.at += 1;
            member(self, Key(key))?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.leave(),
                _ => return Err(JsonError::Syntax),
            }
        }
    }

    /// Reads an array; `element` must read each element.
    pub(super) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.enter(b'[')?;
        if self.next() == Some(b']') {
            return self.leave();
        }
        loop {
            self.count()?;
            element(self)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => return self.leave(),
                _ => return Err(JsonError::Syntax),
            }
        }
    }

    /// Reads an object with `member` if there is one, and passes any other value.
    pub(super) fn object_or_skip(
        &mut self,
        member: impl FnMut(&mut Self, Key<'a>) -> Result<()>,
    ) -> Result<()> {
        match self.next() {
            Some(b'{') => self.object(member),
            _ => self.skip(),
        }
    }

    /// Reads any value as a scalar.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>> {
        if self.next() == Some(b'"') {
            return Ok(Scalar::Text(self.string()?));
        }
        let ((), raw) = self.spanned(Self::skip)?;
        Ok(if raw == "null" {
            Scalar::Absent
        } else {
            Scalar::Other(raw)
        })
    }

    /// Passes any value.
    pub(super) fn skip(&mut self) -> Result<()> {
        match self.next() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(|s, _| s.skip()),
            Some(b'[') => self.array(Self::skip),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(JsonError::Syntax),
        }
    }

    fn enter(&mut self, bracket: u8) -> Result<()> {
        if self.next() != Some(bracket) {
            return Err(JsonError::Syntax);
        }
        self.depth_left = self.depth_left.checked_sub(1).ok_or(JsonError::TooDeep)?;
        self.at += 1;
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.depth_left += 1;
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn count(&mut self) -> Result<()> {
        self.values_left = self
            .values_left
            .checked_sub(1)
            .ok_or(JsonError::TooManyValues)?;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<()> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(JsonError::Syntax)
        }
    }

    /// `-? (0 | [1-9] digits) (. digits)? ([eE] [+-]? digits)?`
    fn number(&mut self) -> Result<()> {
        let bytes = self.text.as_bytes();
        let peek = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let digits = |mut at: usize| -> Result<usize> {
            let from = at;
            while peek(at).is_ascii_digit() {
                at += 1;
            }
            if at == from {
                return Err(JsonError::Syntax);
            }
            Ok(at)
        };
        let mut at = self.at;
        if peek(at) == b'-' {
            at += 1;
        }
        at = if peek(at) == b'0' {
            at + 1
        } else {
            digits(at)?
        };
        if peek(at) == b'.' {
            at = digits(at + 1)?;
        }
        if matches!(peek(at), b'e' | b'E') {
            at += 1;
            if matches!(peek(at), b'+' | b'-') {
                at += 1;
            }
            at = digits(at)?;
        }
        self.at = at;
        Ok(())
    }

    /// Reads a string whose opening quote is next.
    #[inline]
    fn string(&mut self) -> Result<Text<'a>> {
        let bytes = self.text.as_bytes();
        let from = self.at + 1;
        let mut at = from;
        let mut escaped = false;
        loop {
            at += plain_run(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at = escape(bytes, at + 1)?;
                }
                // A control character, or the text is over.
                Some(_) | None => return Err(JsonError::Syntax),
            }
        }
        self.at = at + 1;
        Ok(Text {
            raw: &self.text[from..at],
            escaped,
        })
    }
}

/// A member's name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a>(Text<'a>);

impl<'a> Key<'a> {
    /// What the name says; borrowed unless it is written with escapes.
    #[inline]
    pub(super) fn name(self) -> Cow<'a, str> {
        self.0.decode()
    }
}

/// How many bytes at the beginning of `bytes` are neither quote, backslash nor control character. Eight at a time: the
/// lowest set bit of each of the three masks is exact (only higher ones can be false), and that is the one used.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    const fn repeat(byte: u8) -> u64 {
        ONES * byte as u64
    }
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("the slice has eight bytes"));
        let quote = word ^ repeat(b'"');
        let backslash = word ^ repeat(b'\\');
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(repeat(0x20)) & !word);
        let found = found & HIGHS;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let tail = &bytes[at..];
    at + tail
        .iter()
        .position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f))
        .unwrap_or(tail.len())
}

/// Passes what stands after a backslash; `at` is there.
fn escape(bytes: &[u8], at: usize) -> Result<usize> {
    match bytes.get(at) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
        Some(b'u') => match bytes.get(at + 1..at + 5) {
            Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => Ok(at + 5),
            _ => Err(JsonError::Syntax),
        },
        _ => Err(JsonError::Syntax),
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
