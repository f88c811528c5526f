package tenants

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// reservedSlugs would name, below the base domain, hosts that people expect to be the provider's own: its
// console and API, where a tenant could ask for the passwords of others, and names that mail, DNS and
// certificate tools give a meaning to.
var reservedSlugs = []string{
	"account", "admin", "api", "app", "auth", "billing", "console", "docs", "localhost", "login", "mail",
	"metrics", "ops", "static", "status", "support", "vss", "www",
}

// CheckSlug says whether a tenant can have this slug: one DNS label in lower case, since it is used in host
// names, and none that is reserved. It fails with an [*InvalidError].
func CheckSlug(slug string) error {
	refuse := func(reason string) error { return &InvalidError{Field: "slug", Reason: reason} }
	if reason := checkLabel(slug); reason != "" {
		return refuse(reason)
	}
	if len(slug) > 3 && slug[2:4] == "--" {
		return refuse(`must not have "--" as third and fourth characters: such DNS labels have a meaning of their own`)
	}
	if slices.Contains(reservedSlugs, slug) {
		return refuse("is reserved for the provider")
	}
	return nil
}

// checkLabel says what keeps s from being one label of a host name, or "".
func checkLabel(s string) string {
	if len(s) < 1 || len(s) > 63 {
		return "must have 1 to 63 characters"
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return `may have only lower-case letters a to z, digits and "-"`
		}
	}
	if s[0] == '-' || s[len(s)-1] == '-' {
		return `must neither begin nor end with "-"`
	}
	return ""
}

// normalDomain is the host name of a tenant, as it is stored and compared: in lower case, without the
// trailing dot.
//
// It has at least two labels. A tenant's host belongs to it wholly, paths of other tenants are refused
// there, so one label (as "localhost", or the short name of the provider's machine) is never a tenant's. The
// last label begins with a letter, which no form of IPv4 address does.
func normalDomain(domain string) (string, error) {
	refuse := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("%.260q "+format, append([]any{domain}, args...)...)
	}
	host := asStored(domain)
	switch {
	case strings.ContainsAny(host, ":/"):
		return refuse("is not a host name: give it without scheme, port and path, and not as an IP address")
	case len(host) > 253:
		return refuse("is longer than 253 characters")
	}
	if strings.Contains(host, "xn--") {
		if _, err := idna.Lookup.ToASCII(host); err != nil {
			return refuse("is not an international name: %v", err)
		}
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if reason := checkLabel(label); reason != "" {
			return refuse("is not a host name: each part between dots %s", reason)
		}
	}
	last := labels[len(labels)-1]
	switch {
	case last[0] >= '0' && last[0] <= '9':
		return refuse("is not a host name: it is or looks like an IP address")
	case len(labels) < 2:
		return refuse("must have at least one dot")
	}
	return host, nil
}

// asStored is the domain in lower case and, where it is an international one (UTS 46), in punycode, without the
// trailing dot, be it valid or not.
func asStored(domain string) string {
	domain = strings.TrimSuffix(domain, ".")
	if !utf8.ValidString(domain) {
		return domain
	}
	if strings.ContainsFunc(domain, func(r rune) bool { return r > 0x7e }) || strings.Contains(lower(domain), "xn--") {
		if host, err := idna.Lookup.ToASCII(domain); err == nil {
			return host
		}
		return domain // as it is: it is none
	}
	return lower(domain)
}

// NormalBaseDomain checks the name below which each tenant has a host of its own. It may be empty (there is
// none) or one label, as in demo.localhost.
func NormalBaseDomain(domain string) (string, error) {
	if domain == "" {
		return "", nil
	}
	host := lower(strings.TrimSuffix(domain, "."))
	for label := range strings.SplitSeq(host, ".") {
		if checkLabel(label) != "" {
			return "", fmt.Errorf("base domain %q is not a host name in ASCII, without port", domain)
		}
	}
	return host, nil
}

// AtOrBelow says whether the host is the base domain or below it.
func AtOrBelow(host, base string) bool {
	return base != "" && (host == base || strings.HasSuffix(host, "."+base))
}

// NormalHost is the host of a request's Host header, as it is compared: in lower case, without port and
// trailing dot; false for what is no host. It is stricter than net/http, so that nothing which a proxy
// before us could read as another host gets through, and less strict than [normalDomain], since whatever
// the provider's machines are called inside their network must work: "_" is taken, and so is an empty host.
func NormalHost(host string) (string, bool) {
	if host, ok := strings.CutPrefix(host, "["); ok {
		host, rest, ok := strings.Cut(host, "]")
		addr, err := netip.ParseAddr(host)
		return addr.String(), ok && err == nil && addr.Is6() && addr.Zone() == "" && isPort(rest)
	}
	name := host
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if !isPort(host[i:]) {
			return "", false
		}
		name = host[:i]
	}
	if name == "" {
		return "", true
	}
	name = lower(strings.TrimSuffix(name, "."))
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return "", false
		}
	}
	emptyLabel := name == "" || name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, "..")
	return name, !emptyLabel
}

// isPort says whether s is what may follow a host: nothing, or a colon and digits or none (RFC 3986).
func isPort(s string) bool {
	if s == "" {
		return true
	}
	return s[0] == ':' && strings.Trim(s[1:], "0123456789") == ""
}

// lower is s with A to Z in lower case. strings.ToLower would also make ASCII of what is not, as of the
// Kelvin sign.
func lower(s string) string {
	i := 0
	for i < len(s) && (s[i] < 'A' || s[i] > 'Z') {
		i++
	}
	if i == len(s) {
		return s
	}
	b := []byte(s)
	for ; i < len(b); i++ {
		if b[i] >= 'A' && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
