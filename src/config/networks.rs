//! Ranges of addresses.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A list of address ranges: addresses and CIDR ranges, IPv4 and IPv6.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
#[schemars(with = "Vec<String>")]
pub struct Networks {
    written: Vec<String>,
    /// Network and mask, as IPv6.
    ranges: Vec<(u128, u128)>,
}

impl TryFrom<Vec<String>> for Networks {
    type Error = String;

    fn try_from(written: Vec<String>) -> Result<Self, String> {
        let parse = |range: &String| {
            let (address, bits) = match range.split_once('/') {
                Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
                None => (range.as_str(), None),
            };
            let address: IpAddr = address.trim().parse().ok()?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.unwrap_or(width);
            if bits > width {
                return None;
            }
            // IPv4 lies in the last 32 bits of ::ffff:0:0/96.
            let mask = match 128 - u32::from(width - bits) {
                0 => 0,
                ones => u128::MAX << (128 - ones),
            };
            Some((number(address) & mask, mask))
        };
        let read = |range| {
            parse(range).ok_or_else(|| format!("{range:?} is neither an address nor a CIDR range"))
        };
        let ranges = written.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { written, ranges })
    }
}

impl From<Networks> for Vec<String> {
    fn from(networks: Networks) -> Self {
        networks.written
    }
}

impl Networks {
    /// Whether `address` is in one of the ranges.
    pub fn contain(&self, address: IpAddr) -> bool {
        !self.ranges.is_empty() && {
            let number = number(address);
            self.ranges
                .iter()
                .any(|(network, mask)| number & mask == *network)
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(ranges: &[&str]) -> Result<Networks, String> {
        Networks::try_from(ranges.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_found_in_its_range_and_nowhere_else() {
        let some = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]).unwrap();
        let contain = |text: &str| some.contain(text.parse().unwrap());
        assert!(contain("10.255.0.1") && contain("192.0.2.7") && contain("2001:db8::9"));
        assert!(
            contain("::ffff:10.0.0.1"),
            "IPv4 seen through an IPv6 socket"
        );
        assert!(!contain("11.0.0.1") && !contain("192.0.2.8") && !contain("2001:db9::"));
        assert!(
            networks(&["0.0.0.0/0"])
                .unwrap()
                .contain([9, 9, 9, 9].into())
        );
        assert!(
            !networks(&["0.0.0.0/0"])
                .unwrap()
                .contain("2001:db8::".parse().unwrap())
        );
        assert!(
            networks(&["::/0"])
                .unwrap()
                .contain("2001:db8::".parse().unwrap())
        );
        for bad in ["", "10.0.0.0/33", "host", "10.0.0.0/x"] {
            assert!(networks(&[bad]).is_err(), "{bad}");
        }
    }
}
