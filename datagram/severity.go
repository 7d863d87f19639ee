package datagram

import "tetracast/transcode"

// Severity is how urgent a message is, as RFC 5424, section 6.2.1 numbers it: 0
// is the most urgent. GELF calls the same number level.
type Severity uint8

// The severities that events get.
const (
	SeverityAlert    Severity = 1 // a policy killed a process
	SeverityCritical Severity = 2 // a policy denied or answered something
	SeverityWarning  Severity = 4 // a policy wants somebody told, or events are held back
	SeverityNotice   Severity = 5 // a policy saw something
	SeverityInfo     Severity = 6 // a process started, ended, loaded something
)

// Actions beside [transcode.ActionPost], enum KprobeAction of
// tetragon/tetragon.proto, Tetragon v1.7.0.
const (
	actionSigkill        transcode.Action = 3
	actionOverride       transcode.Action = 5
	actionGetURL         transcode.Action = 7
	actionDNSLookup      transcode.Action = 8
	actionSignal         transcode.Action = 10
	actionNotifyEnforcer transcode.Action = 13
)

// severityOf ranks an event by what a security engineer is woken for: first
// what a policy did, then what it saw, last what processes do anyway. The table
// is in docs/formats.md.
func severityOf(kind transcode.Kind, action transcode.Action) Severity {
	switch action {
	case actionSigkill:
		return SeverityAlert
	case actionOverride, actionSignal, actionNotifyEnforcer:
		return SeverityCritical
	case actionGetURL, actionDNSLookup:
		return SeverityWarning
	}
	switch kind {
	case transcode.KindProcessThrottle, transcode.KindRateLimitInfo:
		return SeverityWarning
	case transcode.KindProcessKprobe, transcode.KindProcessTracepoint, transcode.KindProcessUprobe,
		transcode.KindProcessLsm, transcode.KindProcessUsdt:
		return SeverityNotice
	}
	return SeverityInfo
}
