//! What stands behind the question mark.

use percent_encoding::percent_decode_str;

/// Names and values, decoded, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query; text that is not UTF-8 once decoded is none.
    pub(super) fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            let part = part.replace('+', " ");
            percent_decode_str(&part).decode_utf8().ok().map(std::borrow::Cow::into_owned)
        };
        let pairs = text.split('&').filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        Self(pairs.collect())
    }

    /// The first value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_once_and_damage_is_left_out() {
        let query = Query::parse("id=a%2Fb+c&id=%252e&n=7&bad=%ff&x&&=y");
        assert_eq!(query.all("id").collect::<Vec<_>>(), ["a/b c", "%2e"]);
        assert_eq!(
            (query.number("n"), query.get("bad"), query.get("x")),
            (Some(7), None, Some(""))
        );
        assert_eq!(query.number::<u32>("id"), None);
        assert_eq!(Query::parse("").get("id"), None);
    }
}
