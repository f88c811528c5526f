package egress

import (
	"encoding/json"
	"strings"
)

// URL is a tenant's, whole. Its query may have a secret, as an API key, so whatever prints it shows only the names in it.
type URL string

// String is the URL with the values of its query left out.
func (u URL) String() string {
	before, query, found := strings.Cut(string(u), "?")
	if !found {
		return before
	}
	parts := strings.Split(query, "&")
	for i, part := range parts {
		name, _, named := strings.Cut(part, "=")
		parts[i] = "***"
		if named {
			parts[i] = name + "=***"
		}
	}
	return before + "?" + strings.Join(parts, "&")
}

// MarshalJSON is of what String says.
func (u URL) MarshalJSON() ([]byte, error) { return json.Marshal(u.String()) }
