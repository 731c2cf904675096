//! Ranges of addresses.

use std::net::IpAddr;

/// A list of address ranges.
#[derive(Debug, Clone, Default)]
pub(super) struct Networks(Vec<(u128, u128)>);

impl Networks {
    /// Reads addresses and CIDR ranges.
    ///
    /// # Errors
    /// The first that is neither.
    pub(super) fn parse(ranges: &[String]) -> Result<Self, String> {
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
        ranges
            .iter()
            .map(|range| parse(range).ok_or_else(|| range.clone()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether `address` is in one of the ranges.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        !self.0.is_empty() && {
            let number = number(address);
            self.0
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

    #[test]
    fn an_address_is_found_in_its_range_and_nowhere_else() {
        let ranges = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"].map(str::to_owned);
        let networks = Networks::parse(&ranges).unwrap();
        let contain = |text: &str| networks.contain(text.parse().unwrap());
        assert!(contain("10.255.0.1") && contain("192.0.2.7") && contain("2001:db8::9"));
        assert!(
            contain("::ffff:10.0.0.1"),
            "IPv4 seen through an IPv6 socket"
        );
        assert!(!contain("11.0.0.1") && !contain("192.0.2.8") && !contain("2001:db9::"));
        assert!(
            Networks::parse(&["0.0.0.0/0".to_owned()])
                .unwrap()
                .contain([9, 9, 9, 9].into())
        );
        for bad in ["", "10.0.0.0/33", "host", "10.0.0.0/x"] {
            assert!(Networks::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
