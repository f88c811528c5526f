package quota

// Reason is why a call was refused, for the meter, metrics and the text that the wallet gets.
type Reason uint8

const (
	NoReason      Reason = iota
	WalletRate           // more calls than a wallet may make
	TenantRate           // more than all wallets of the tenant may
	AddressRate          // too many failed credentials, enrolments or logins from one address
	EnrolmentRate        // more new wallets than the tenant may have in a while
	LoginRate            // more logins of wallets that are not known than the tenant may have in a while
	Enrolment            // closed, capped, or the wallet is not on the list
	Storage              // a ceiling
	Overload             // no place in time, or no memory
	Blocked              // the wallet
	State                // the tenant's

	Reasons = iota // how many there are
)

var reasonNames = [Reasons]string{
	"none", "wallet_rate", "tenant_rate", "address_rate", "enrolment_rate", "login_rate", "enrolment", "storage", "overload", "blocked", "state",
}

func (r Reason) String() string { return reasonNames[r] }
