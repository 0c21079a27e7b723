package manual

import (
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/core/wire"
)

// topicSection is that of what is no program (man-pages(7)).
const topicSection = "7"

// Topics are what `sampan help TOPIC` explains beside the commands. They have pages too.
func Topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "concepts", Short: "Containers, images, registries; and what a virtual machine has that they have not", Long: concepts},
		{Use: "health", Short: "Health checks: what a probe's exit status means, and what comes of it", Long: health},
	}
}

const concepts = `An image is a root filesystem in read-only layers and a configuration. A container
is a process in namespaces of its own, with a writable layer over an image's. A
registry keeps repositories, a repository has tags, and a tag names an image.

                   Container                       Virtual machine
Kernel             the host's                      its own
Start              milliseconds: a process         seconds: a machine boots
Size               megabytes: what the program     gigabytes: a system
                   needs
Memory             what its processes use          what it was given
Speed              the processor's own             close to it
On one machine     thousands                       tens
Isolated by        namespaces, cgroups,            virtual hardware
                   capabilities, seccomp
Other systems      Linux programs only             any operating system
Kept by            its image and volumes           its disks

What needs a kernel of its own, or runs code that nobody trusts, is better in a
virtual machine. Containers in a virtual machine are both.
`

const health = `A health check is a command that the engine runs in the container: HEALTHCHECK of
the image, or --health-cmd of run. Only the last HEALTHCHECK of an image counts, and
NONE (--no-healthcheck) takes away that of the image below.

Exit status   Meaning
0             success: the container is healthy
1             failure: after --health-retries in a row the container is unhealthy
2             reserved: do not use it; it counts as a failure, and the daemon's log says so

A probe runs every --health-interval (30s), and one that takes longer than
--health-timeout (30s) has failed. During --health-start-period (0s) failures do not
count, and probes come every --health-start-interval (5s). The last five results are
in State.Health of inspect.

A container that is unhealthy goes on: --health-on-failure restart, stop or kill has
something done about it.

Kubernetes does not read HEALTHCHECK. Its probes compare so:

livenessProbe     --health-cmd with --health-on-failure restart
readinessProbe    the state healthy, for which others wait
startupProbe      --health-start-period and --health-start-interval
periodSeconds     --health-interval
timeoutSeconds    --health-timeout
failureThreshold  --health-retries
`

// topicPage is a topic's page: its text as it is, since it has tables.
func topicPage(cmd *cobra.Command) string {
	p := &page{}
	p.line(`.TH %s %s %s %s %s`, quoted("SAMPAN-"+cmd.Name()), topicSection, quoted(date()), quoted("Sampan "+wire.Release), quoted("Sampan Manual"))
	p.heading("NAME")
	p.text(name(cmd) + " - " + cmd.Short)
	p.heading("DESCRIPTION")
	p.line(".nf")
	p.text(cmd.Long)
	p.line(".fi")
	return p.b.String()
}
