// Package name makes names of two words for containers that were given none: "quiet_heron".
package name

import (
	"math/rand/v2"
	"strconv"
)

// tries is how many pairs are drawn before a number is added: with thousands of containers most
// pairs of one word may be taken, but hardly sixteen drawn ones.
const tries = 16

// Generate returns a name for which taken is false.
func Generate(taken func(string) bool) string {
	for range tries {
		if n := draw(); !taken(n) {
			return n
		}
	}
	for i := 2; ; i++ {
		if n := draw() + strconv.Itoa(i); !taken(n) {
			return n
		}
	}
}

func draw() string {
	return manner[rand.IntN(len(manner))] + "_" + thing[rand.IntN(len(thing))]
}

var manner = [...]string{
	"able", "agile", "airy", "amber", "ample", "apt", "azure", "blithe", "bold", "brave", "breezy", "bright",
	"brisk", "buoyant", "calm", "candid", "careful", "cheery", "civil", "clean", "clear", "clever", "cosy", "crisp",
	"curious", "daring", "deft", "dry", "eager", "early", "easy", "even", "fair", "famous", "fast", "fearless",
	"fine", "firm", "fleet", "fond", "frank", "free", "fresh", "friendly", "gallant", "gentle", "glad", "golden",
	"grand", "handy", "happy", "hardy", "honest", "humble", "jaunty", "jolly", "keen", "kind", "late", "level",
	"light", "lively", "lucky", "mellow", "merry", "mighty", "mild", "modest", "narrow", "neat", "nimble", "noble",
	"patient", "placid", "plain", "plucky", "polite", "prompt", "proud", "quick", "quiet", "rapid", "ready", "rosy",
	"rustic", "salty", "serene", "shiny", "silent", "silver", "simple", "sleek", "smart", "smooth", "snug", "sober",
	"solid", "spry", "stable", "steady", "stout", "sturdy", "subtle", "sunny", "sure", "swift", "tame", "tidy",
	"trim", "true", "trusty", "upbeat", "vivid", "warm", "wary", "wise", "witty", "young", "zesty",
}

// thing is boats, their parts, and what one meets on the water.
var thing = [...]string{
	"albatross", "anchor", "anemone", "arch", "atoll", "auk", "ballast", "barge", "bay", "beacon", "beam", "bight",
	"bollard", "boom", "bow", "breaker", "brig", "buoy", "cable", "canoe", "capstan", "cargo", "catamaran", "channel",
	"chart", "clam", "cleat", "clipper", "coast", "compass", "coral", "cormorant", "cove", "crab", "crane", "creek",
	"current", "cutter", "deck", "delta", "dhow", "dinghy", "dock", "dolphin", "drift", "eddy", "eel", "estuary",
	"fathom", "ferry", "fjord", "flag", "foam", "galley", "gannet", "gondola", "gull", "halyard", "harbour", "harpoon",
	"hatch", "hawser", "helm", "heron", "herring", "hull", "inlet", "island", "isthmus", "jetty", "junk", "kayak",
	"keel", "kelp", "ketch", "lagoon", "lantern", "lighthouse", "limpet", "lugger", "mackerel", "mast", "mooring", "narwhal",
	"oar", "osprey", "otter", "paddle", "pearl", "pelican", "penguin", "petrel", "pier", "pike", "pilot", "plank",
	"plover", "pontoon", "prow", "puffin", "quay", "raft", "ray", "reef", "rigging", "ripple", "river", "rope",
	"rudder", "sail", "salmon", "sampan", "sandbar", "schooner", "seal", "sextant", "shoal", "shore", "skiff", "skipper",
	"sloop", "spar", "squid", "starboard", "stern", "strait", "sturgeon", "surf", "swell", "tern", "tide", "tiller",
	"topsail", "trawler", "tug", "turtle", "urchin", "voyage", "wake", "walrus", "wave", "wharf", "whelk", "winch",
	"yacht", "yawl",
}
