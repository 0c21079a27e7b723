package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// manager answers as the manager of a swarm with one of everything, and remembers what it was asked to change.
type manager struct {
	host string

	mu    sync.Mutex
	asked []change
}

// change is a request that is no question.
type change struct {
	Method, Path, Query, Auth string
	Body                      any
}

// fullService has a value for each thing that a service can have.
const fullService = `{"ID":"v1","Version":{"Index":9},"Spec":{"Name":"full","Labels":{"old":"1","more":"2"},"TaskTemplate":{"ContainerSpec":{
		"Image":"app:1","Labels":{"cl":"1"},"Command":["c"],"Args":["a"],"Env":["A=1","B=2"],"User":"u","Groups":["g1","g2"],"Init":false,
		"Privileges":{"CredentialSpec":{"Config":"id-of-conf2"},"SELinuxContext":null},
		"Mounts":[{"Type":"bind","Source":"/x","Target":"/x"},{"Type":"volume","Source":"v","Target":"/v"}],"StopGracePeriod":10000000000,
		"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000,"Retries":3},"Hosts":["10.0.0.1 h1 h2","10.0.0.2 h1"],
		"DNSConfig":{"Nameservers":["8.8.8.8"],"Search":["example.com"],"Options":["ndots:2"]},"Isolation":"default",
		"Secrets":[{"File":{"Name":"s","UID":"0","GID":"0","Mode":292},"SecretID":"id-of-sec","SecretName":"sec"}],
		"Configs":[{"File":{"Name":"c","UID":"0","GID":"0","Mode":292},"ConfigID":"id-of-conf","ConfigName":"conf"},{"Runtime":{},"ConfigID":"id-of-conf2","ConfigName":"conf2"}],
		"Sysctls":{"net.a":"1","net.b":"2"},"CapabilityAdd":["CAP_NET_ADMIN"],"CapabilityDrop":["CAP_CHOWN"],
		"Ulimits":[{"Name":"nofile","Hard":10,"Soft":5},{"Name":"nproc","Hard":10,"Soft":5}]},
		"Resources":{"Limits":{"NanoCPUs":1000000000,"MemoryBytes":1048576,"Pids":10},"Reservations":{"NanoCPUs":5,"GenericResources":[{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}}]}},
		"RestartPolicy":{"Condition":"on-failure","Delay":1000000000,"MaxAttempts":3,"Window":2000000000},
		"Placement":{"Constraints":["node.role==manager","node.id==x"],"Preferences":[{"Spread":{"SpreadDescriptor":"node.labels.a"}},{"Spread":{"SpreadDescriptor":"node.labels.b"}}],"MaxReplicas":4,"Platforms":[{"Architecture":"amd64","OS":"linux"}]},
		"Networks":[{"Target":"id-of-net","Aliases":["al"]}],"LogDriver":{"Name":"json-file","Options":{"max-size":"1m"}},"ForceUpdate":1,"Runtime":"container"},
		"Mode":{"Replicated":{"Replicas":2}},"UpdateConfig":{"Parallelism":2,"FailureAction":"continue","Monitor":6000000000,"MaxFailureRatio":0.5,"Order":"start-first"},
		"RollbackConfig":{"Parallelism":3,"FailureAction":"pause","Monitor":7000000000,"MaxFailureRatio":0,"Order":"stop-first"},
		"EndpointSpec":{"Mode":"vip","Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"},{"Protocol":"udp","TargetPort":53,"PublishedPort":53,"PublishMode":"host"}]}},
		"PreviousSpec":{"Name":"full","Labels":{}}}`

// answers are what there is in the swarm, by path.
var answers = map[string]string{
	"/_ping": "OK",
	"/info":  `{"Swarm":{"NodeID":"n1","LocalNodeState":"active","ControlAvailable":true}}`,
	"/swarm": `{"ID":"s1","Version":{"Index":7},"Spec":{"Name":"default","Labels":{"a":"b"},"Orchestration":{"TaskHistoryRetentionLimit":5},
		"Raft":{"SnapshotInterval":10000,"KeepOldSnapshots":0,"LogEntriesForSlowFollowers":500,"ElectionTick":10,"HeartbeatTick":1},
		"Dispatcher":{"HeartbeatPeriod":5000000000},"CAConfig":{"NodeCertExpiry":7776000000000000,"ForceRotate":2},"EncryptionConfig":{"AutoLockManagers":true}},
		"TLSInfo":{"TrustRoot":"root"},"JoinTokens":{"Worker":"w","Manager":"m"}}`,
	"/swarm/unlockkey": `{"UnlockKey":"key"}`,
	"/nodes": `[{"ID":"n10000000000000000000000","CreatedAt":"2020-01-02T03:04:05.6Z","Spec":{"Role":"manager","Availability":"drain"},"Description":{"Hostname":"host10","Engine":{"EngineVersion":"28.0"}},"Status":{"State":"down","Message":"Heartbeat failure"}},
		{"ID":"n1","Spec":{"Role":"manager","Availability":"active"},"Description":{"Hostname":"host2","Engine":{"EngineVersion":"28.5"}},"Status":{"State":"ready"},"ManagerStatus":{"Leader":true,"Reachability":"reachable"}},
		{"ID":"n3","Spec":{"Role":"manager","Availability":"pause"},"Description":{"Hostname":"Host3","TLSInfo":{"TrustRoot":"x"}},"Status":{"State":"unknown"},"ManagerStatus":{"Reachability":"unreachable"}}]`,
	"/nodes/n2": `{"ID":"n2","CreatedAt":"2020-01-02T03:04:05.6Z","Spec":{"Name":"given","Labels":{"b":"","a":"1"},"Role":"worker","Availability":"pause"},"Description":{"Hostname":"host2",
		"Platform":{"Architecture":"x86_64","OS":"linux"},"Resources":{"NanoCPUs":2500000000,"MemoryBytes":25276530688},"Engine":{"EngineVersion":"28.5","Labels":{"x":"y"},
		"Plugins":[{"Type":"Volume","Name":"local"},{"Type":"Network","Name":"bridge"},{"Type":"Network","Name":"host"}]},"TLSInfo":{"TrustRoot":"-----\nAA\n","CertIssuerSubject":"AAE=","CertIssuerPublicKey":"AgM="}},
		"Status":{"State":"down","Message":"It Failed","Addr":"10.0.0.2"}}`,
	"/services": `[{"ID":"v2aaaaaaaaaaaaaaaaaaaaaaa","Spec":{"Name":"web10","TaskTemplate":{"ContainerSpec":{"Image":"docker.io/library/app:1@sha256:1111111111111111111111111111111111111111111111111111111111111111"},"Placement":{"MaxReplicas":3}},"Mode":{"Replicated":{"Replicas":3}}},
		"Endpoint":{"Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"},{"Protocol":"tcp","TargetPort":81,"PublishedPort":8081,"PublishMode":"ingress"},{"Protocol":"udp","TargetPort":81,"PublishedPort":81,"PublishMode":"host"}]},"ServiceStatus":{"RunningTasks":2,"DesiredTasks":3}},
		{"ID":"v1","Spec":{"Name":"web2","TaskTemplate":{"ContainerSpec":{"Image":"app@sha256:1111111111111111111111111111111111111111111111111111111111111111"}},"Mode":{"Global":{}}},"Endpoint":{},"ServiceStatus":{"RunningTasks":1,"DesiredTasks":1}},
		{"ID":"v3","Spec":{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"h:5000/app"}},"Mode":{"ReplicatedJob":{"MaxConcurrent":1,"TotalCompletions":5}}},"Endpoint":{},"ServiceStatus":{"RunningTasks":1,"DesiredTasks":1,"CompletedTasks":4}},
		{"ID":"full","Spec":{"Name":"b","TaskTemplate":{"ContainerSpec":{"Image":"x"}},"Mode":{"GlobalJob":{}}},"Endpoint":{},"ServiceStatus":{"RunningTasks":1,"DesiredTasks":1,"CompletedTasks":4}}]`,
	"/tasks": `[` + aTask("t1", 1, "running", "running", "2020-01-01T00:00:00Z", "") + `,` + aTask("t2", 10, "running", "pending", "2020-01-01T00:00:00Z", "no suitable node (scheduling constraints not satisfied on 1 node)") + `,` +
		aTask("t3", 2, "shutdown", "failed", "2020-01-01T00:00:00Z", "task: non-zero exit (1)") + `,` + aTask("t4", 2, "ready", "assigned", "2020-01-02T00:00:00Z", "") + `,` + aTask("t5", 0, "shutdown", "shutdown", "2020-01-02T00:00:00Z", "") + `]`,
	"/tasks/t2": aTask("t2", 1, "running", "running", "2020-01-01T00:00:00Z", ""),
	"/services/full/logs": frame(1, "com.docker.swarm.node.id=n2,com.docker.swarm.service.id=full,com.docker.swarm.task.id=t2,z=1,env=a%2Cb hello, world\n") +
		frame(2, "com.docker.swarm.node.id=gone,com.docker.swarm.service.id=gone,com.docker.swarm.task.id=t2 err\n"),
	"/nodes/n1":       `{"ID":"n1","Version":{"Index":8},"Spec":{"Labels":{"old":"1","more":"2"},"Role":"manager","Availability":"active"},"ManagerStatus":{"Addr":"10.0.0.1:2377"}}`,
	"/networks/net":   `{"Id":"id-of-net","Name":"net","Scope":"swarm"}`,
	"/networks/other": `{"Id":"id-of-other","Name":"other","Scope":"swarm"}`,
	"/secrets":        `[{"ID":"id-of-sec","Spec":{"Name":"sec"}},{"ID":"id-of-sec2","Spec":{"Name":"sec2"}}]`,
	"/configs":        `[{"ID":"id-of-conf","Spec":{"Name":"conf"}},{"ID":"id-of-conf2","Spec":{"Name":"conf2"}}]`,
	"/distribution/app:1/json": `{"Descriptor":{"digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111"},
		"Platforms":[{"architecture":"amd64","os":"linux"},{"architecture":"arm","os":"linux","variant":"v7"}]}`,
	"/services/bare": `{"ID":"v0","Version":{"Index":3},"Spec":{"Name":"bare","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":"app:1"}},"Mode":{"Global":{}}}}`,
	"/services/full": fullService,
	"/services/pretty": strings.NewReplacer(`,{"Runtime":{},"ConfigID":"id-of-conf2","ConfigName":"conf2"}`, "", `"Retries":3`, `"Retries":3,"StartPeriod":90000000000`, `"PreviousSpec"`, `"UpdateStatus":
		{"State":"completed","StartedAt":"2020-01-01T00:00:00Z","CompletedAt":"2020-01-02T00:00:00Z","Message":"update completed"},"Endpoint":{"Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"}]},"PreviousSpec"`).Replace(fullService),
}

// aTask is a task, as a manager tells of it.
func aTask(id string, slot int, desired, state, when, problem string) string {
	return fmt.Sprintf(`{"ID":%q,"CreatedAt":%q,"Spec":{"ContainerSpec":{"Image":"docker.io/me/app:1@sha256:1111111111111111111111111111111111111111111111111111111111111111"}},"ServiceID":"full",
		"Slot":%d,"NodeID":"n2","DesiredState":%q,"Status":{"Timestamp":"2020-06-01T00:00:00Z","State":%q,"Err":%q,"PortStatus":{"Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":81}]}}}`,
		id+"000000000000000000000000", when, slot, desired, state, problem)
}

// frame is a piece of a log.
func frame(stream byte, text string) string {
	return string([]byte{stream, 0, 0, 0, 0, 0, byte(len(text) >> 8), byte(len(text))}) + text
}

var apiVersion = regexp.MustCompile(`^/v[0-9.]+`)

func (m *manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.49")
	w.Header().Set("Ostype", "linux")
	path := apiVersion.ReplaceAllString(r.URL.Path, "")
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		answer, ok := answers[path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"message":"` + path + ` is not there"}`
		}
		io.WriteString(w, answer) //nolint:errcheck // who asked is gone
		return
	}
	c := change{Method: r.Method, Path: path, Query: r.URL.Query().Encode(), Auth: r.Header.Get("X-Registry-Auth")}
	_ = json.NewDecoder(r.Body).Decode(&c.Body) // some have none
	c.Body = withoutEmpty(c.Body)
	m.mu.Lock()
	m.asked = append(m.asked, c)
	m.mu.Unlock()
	switch path {
	case "/swarm/init":
		io.WriteString(w, `"n1"`) //nolint:errcheck // who asked is gone
	default:
		io.WriteString(w, `{"ID":"v9"}`) //nolint:errcheck // who asked is gone
	}
}

// withoutEmpty leaves out what says nothing: whether it is sent or not is the same.
func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"Ports", "Secrets", "Configs"} { // docker's are in the order of a map
			if list, ok := v[name].([]any); ok {
				slices.SortFunc(list, func(a, b any) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
		}
		for key, value := range v {
			if v[key] = withoutEmpty(value); v[key] == nil {
				delete(v, key)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		if len(v) == 0 {
			return nil
		}
		for i := range v {
			v[i] = withoutEmpty(v[i])
		}
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return v
}

// take returns what was asked for since the last time.
func (m *manager) take() []change {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := m.asked
	m.asked = nil
	return asked
}

func newManager(t *testing.T) *manager {
	path := filepath.Join(t.TempDir(), "m.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{host: "unix://" + path}
	s := &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}
	go s.Serve(l) //nolint:errcheck // ends with Close
	t.Cleanup(func() { _ = s.Close() })
	return m
}

// swarmLines are command lines that change something, or are wrong. $DIR has files for them.
const swarmLines = `
swarm init
swarm init --advertise-addr 10.0.0.1 --listen-addr eth0 --data-path-addr lo --data-path-port 5000 --availability Drain
swarm init --listen-addr 10.0.0.9:99 --autolock --cert-expiry 48h --dispatcher-heartbeat 3s --max-snapshots 2 --snapshot-interval 5 --task-history-limit 0
swarm init --listen-addr ::1
swarm init --listen-addr [::1]:5 --force-new-cluster --default-addr-pool 10.20.0.0/16 --default-addr-pool 10.30.0.0/16 --default-addr-pool-mask-length 26
swarm init --external-ca protocol=cfssl,url=https://a.example,x=y
swarm init --external-ca url=https://a.example
swarm init --external-ca protocol=other,url=https://a.example
swarm init --listen-addr a:b:c
swarm init --listen-addr :9
swarm init --availability nothing
swarm join --token t 10.0.0.1:2377
swarm join --token t --availability pause --advertise-addr a --listen-addr :2 --data-path-addr b 10.0.0.1:2377
swarm join-token --rotate worker
swarm join-token --rotate -q manager
swarm leave
swarm leave --force
swarm update --autolock=false --task-history-limit 9
swarm update --cert-expiry 1h --dispatcher-heartbeat 2s --max-snapshots 1 --snapshot-interval 7 --external-ca protocol=cfssl,url=https://a.example,cacert=$DIR/ca.pem
swarm update --external-ca protocol=cfssl,url=https://a.example
swarm unlock-key --rotate
swarm ca --rotate -d
swarm ca --rotate -d --ca-cert $DIR/ca.pem --ca-key $DIR/ca.pem --cert-expiry 5h
swarm ca --rotate -d --ca-cert $DIR/ca.pem --external-ca protocol=cfssl,url=https://a.example
swarm ca --rotate -d --ca-cert $DIR/ca.pem
swarm ca --rotate -d --external-ca protocol=cfssl,url=https://a.example
swarm ca --rotate -d --ca-cert $DIR/env
swarm ca --cert-expiry 5h
node promote n1
node demote n1
node update --availability drain --role worker --label-add new=x --label-add old=2 --label-rm more n1
node update --label-rm nothing n1
node rm n1
node rm -f n1
service rm full
service scale -d full=5
service scale -d full=0 bare=2
service rollback -d full
service create -d app:1
service create -d app
service create -d --no-resolve-image docker.io/library/app
service create -d --no-resolve-image registry.example:5000/a/b@sha256:2222222222222222222222222222222222222222222222222222222222222222
service create -d --with-registry-auth --no-resolve-image registry.example/app:1
service create -d --name x --hostname h --workdir /w --user u:g -t --read-only --init --stop-signal TERM --stop-grace-period 3s --isolation default app:1 a -b --name c
service create -d --label a=b --label c --container-label d=e -e A=1 -e B -e PATH --env-file $DIR/env -e A=2 app:1
service create -d --entrypoint "sh -c 'a b' \"c d\" e\ f" app:1
service create -d --entrypoint "sh 'a" app:1
service create -d --mount type=bind,src=/a,dst=/b,ro --mount type=volume,src=v,dst=/v,volume-nocopy,volume-label=a=b,volume-driver=d,volume-opt=o=p --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770 --mount v,dst=/x app:1
service create -d --mount type=bind,src=/a,dst=/b,ro,bind-propagation=rshared --mount type=volume,src=v,dst=/v,volume-nocopy,volume-driver=d,volume-opt=o=p --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770 app:1
service create -d --mount nothing app:1
service create -d -p 8080:80 -p 53:53/udp -p 99 -p 9000-9002:9000-9002 -p 7000-7001:70 app:1
service create -d -p 127.0.0.1:80:80 app:1
service create -d -p target=80,published=81,protocol=udp,mode=host -p target=9 app:1
service create -d -p published=81 app:1
service create -d -p target=80,mode=other app:1
service create -d -p target=x app:1
service create -d --endpoint-mode DNSRR app:1
service create -d --health-cmd "a b" --health-interval 2s --health-timeout 3s --health-retries 4 --health-start-period 5s --health-start-interval 6s app:1
service create -d --no-healthcheck app:1
service create -d --no-healthcheck --health-retries 2 app:1
service create -d --health-interval -2s app:1
service create -d --limit-cpu 1.5 --limit-memory 10m --limit-pids 7 --reserve-cpu 0.5 --reserve-memory 5m --generic-resource gpu=2 --generic-resource x=1 app:1
service create -d --generic-resource gpu=a app:1
service create -d --generic-resource gpu app:1
service create -d --generic-resource gpu=-1 app:1
service create -d --generic-resource gpu=1 --generic-resource gpu=2 app:1
service create -d --limit-cpu x app:1
service create -d --limit-memory x app:1
service create -d --restart-condition none app:1
service create -d --restart-delay 1s --restart-max-attempts 2 --restart-window 3s app:1
service create -d --update-parallelism 0 --update-delay 1s --update-monitor 2s --update-failure-action rollback --update-max-failure-ratio 0.25 --update-order start-first app:1
service create -d --rollback-parallelism 4 --rollback-delay 1s --rollback-monitor 2s --rollback-failure-action continue --rollback-max-failure-ratio .5 --rollback-order start-first app:1
service create -d --update-delay 3s app:1
service create -d --update-max-failure-ratio x app:1
service create -d --constraint node.role==manager --constraint node.id!=x --placement-pref spread=node.labels.a --replicas-max-per-node 3 --replicas 5 app:1
service create -d --placement-pref a=b app:1
service create -d --placement-pref spread app:1
service create -d --mode global app:1
service create -d --mode global --replicas 1 app:1
service create -d --mode global --replicas-max-per-node 1 app:1
service create -d --mode replicated-job --replicas 5 --max-concurrent 2 app:1
service create -d --mode replicated-job --replicas 5 app:1
service create -d --mode global-job app:1
service create -d --mode global-job --update-delay 1s app:1
service create -d --mode other app:1
service create -d --max-concurrent 2 app:1
service create -d --network net --network name=other,alias=x,alias=y,driver-opt=a=b app:1
service create -d --network nothing app:1
service create -d --dns 1.1.1.1 --dns 2606:4700::1111 --dns-option ndots:1 --dns-search example.com. --dns-search . --host a:1.2.3.4 --host b:::1 app:1
service create -d --dns x app:1
service create -d --dns-search -a app:1
service create -d --host x app:1
service create -d --sysctl net.a=1 --sysctl net.b --ulimit nofile=5:10 --ulimit nproc=7 --cap-add net_admin --cap-add chown --cap-drop CHOWN --cap-drop kill --oom-score-adj 5 --group g --group h app:1
service create -d --cap-add all --cap-add chown --cap-drop ALL app:1
service create -d --ulimit x app:1
service create -d --log-driver syslog --log-opt a=b --log-opt c=d app:1
service create -d --log-opt a=b app:1
service create -d --secret sec --secret source=sec2,target=t,uid=1,gid=2,mode=0400 --config conf --config src=conf2,target=/c app:1
service create -d --secret source=sec,target=a --secret source=sec2,target=a app:1
service create -d --secret nothing app:1
service create -d --config nothing app:1
service create -d --secret target=x app:1
service create -d --credential-spec file://a app:1
service create -d --credential-spec registry://a app:1
service create -d --credential-spec config://conf app:1
service create -d --credential-spec x app:1
service create -d --label "a b=c" app:1
service create -d --replicas x app:1
service update -d full
service update -d bare
service update -d --force full
service update -d --rollback full
service update -d --rollback --replicas 2 full
service update -d --image app:1 full
service update -d --image app:2 full
service update -d --image app:2 --no-resolve-image full
service update -d --args "x 'y z'" --entrypoint "" --workdir /w --user u2 --hostname h --init --stop-signal INT --stop-grace-period 4s -t --read-only --isolation x --oom-score-adj 3 full
service update -d --label-add new=1 --label-add old=2 --label-rm more --container-label-add a=b --container-label-rm cl full
service update -d --env-add A=3 --env-rm B full
service update -d --env-add C=3 bare
service update -d --mount-add type=volume,src=w,dst=/v --mount-rm /x full
service update -d --mount-add type=volume,src=w,dst=/w --mount-add type=volume,src=y,dst=/w full
service update -d --publish-add 81:81 --publish-rm 80 full
service update -d --publish-add 8080:80 --publish-rm target=53,protocol=udp,mode=host full
service update -d --publish-add target=1,mode=host bare
service update -d --health-cmd false --health-timeout 3s full
service update -d --health-cmd "" full
service update -d --health-start-period 3s --health-retries 1 bare
service update -d --no-healthcheck full
service update -d --no-healthcheck --health-retries 2 full
service update -d --limit-cpu 2 --limit-pids 0 full
service update -d --limit-memory 1g --reserve-memory 1g bare
service update -d --reserve-cpu 1 full
service update -d --generic-resource-add x=3 --generic-resource-rm gpu full
service update -d --generic-resource-rm nothing full
service update -d --generic-resource-add x=1 --generic-resource-add x=2 full
service update -d --restart-condition any --restart-window 0s full
service update -d --restart-max-attempts 1 bare
service update -d --update-parallelism 0 --update-order stop-first --rollback-delay 9s full
service update -d --update-delay 1s --rollback-max-failure-ratio 0.1 bare
service update -d --constraint-add node.id==y --constraint-rm node.id==x --placement-pref-add spread=c --placement-pref-rm spread=node.labels.a --replicas-max-per-node 9 full
service update -d --constraint-add a==b bare
service update -d --replicas 0 full
service update -d --replicas 4 bare
service update -d --endpoint-mode dnsrr full
service update -d --endpoint-mode dnsrr bare
service update -d --network-add other full
service update -d --network-add net full
service update -d --network-rm net full
service update -d --network-add name=other,alias=a bare
service update -d --dns-add 9.9.9.9 --dns-rm 8.8.8.8 --dns-option-add a --dns-option-rm ndots:2 --dns-search-add b.example --dns-search-rm example.com full
service update -d --dns-add 9.9.9.9 bare
service update -d --host-add h3:10.0.0.3 --host-rm h1 full
service update -d --host-rm h1:10.0.0.1 full
service update -d --group-add a --group-rm g1 full
service update -d --sysctl-add net.c=3 --sysctl-rm net.a --ulimit-add nofile=7 --ulimit-rm nproc full
service update -d --cap-add chown --cap-add kill --cap-drop net_admin --cap-drop setuid full
service update -d --cap-add reset --cap-drop reset full
service update -d --cap-add all full
service update -d --log-driver local --log-opt a=b full
service update -d --log-opt a=b full
service update -d --secret-add sec2 --secret-rm sec --config-add conf2 --config-rm conf full
service update -d --secret-add nothing full
service update -d --credential-spec "" full
service update -d --credential-spec config://conf full
service update -d --credential-spec file://x bare
service update -d --with-registry-auth full
service update -d nothing
`

// swarmReads are command lines that print.
const swarmReads = `
node ls
node ls -q
node ls --format json
node ls --format raw
node ls --format "table {{.ID}}\t{{.Self}}\t{{.TLSStatus}}"
node inspect n2 --pretty
node inspect n1 n2 --pretty
node inspect self --format {{.Spec.Role}}
node ps
node ps -q n2
node ps n2 --no-trunc
node ps n2 --no-resolve --format json
node ps n2 nothing
service ls
service ls -q
service ls --format json
service ls --format raw
service ps web2 full
service ps -q full
service ps nothing full --no-trunc
service ps full --format {{.Name}}
service inspect pretty --pretty
service inspect bare pretty --pretty
service inspect pretty nothing --pretty
service inspect full --format "{{json .Spec.Mode}}"
service inspect nothing bare --format {{.Spec.Name}}
service logs full
service logs full --details --no-task-ids
service logs full --no-trunc --no-resolve
service logs full --raw
swarm ca
swarm join-token worker
swarm join-token -q manager
swarm unlock-key
swarm unlock-key -q
`

// TestSwarmOutputAsDocker compares what docker's client and ours print of a swarm.
func TestSwarmOutputAsDocker(t *testing.T) {
	peer, m := newDocker(t), newManager(t)
	t.Setenv("HOME", peer.home)
	for line := range strings.Lines(strings.TrimSpace(swarmReads)) {
		args := fields(strings.TrimSpace(line))
		cmd := exec.CommandContext(t.Context(), peer.path, append([]string{"-H", m.host}, args...)...)
		cmd.Env = []string{"HOME=" + peer.home, "PATH=" + os.Getenv("PATH")}
		want, _ := cmd.Output() // some of it is wrong, and the rest printed
		var out bytes.Buffer
		c := cli.New(strings.NewReader(""), &out, io.Discard)
		c.Env = func(name string) string { return map[string]string{"HOME": peer.home, "SAMPAN_HOST": m.host}[name] }
		root := newRootFor(c, args)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		if diff := gocmp.Diff(strings.NewReplacer("docker swarm", "sampan swarm").Replace(string(want)), out.String()); diff != "" || (err == nil) != cmd.ProcessState.Success() {
			t.Errorf("%s%v (-docker +sampan)\n%s", line, err, diff)
		}
	}
}

// TestSwarmAsDocker compares what docker's client and ours ask a manager for, and how they end.
func TestSwarmAsDocker(t *testing.T) {
	peer, m, dir := newDocker(t), newManager(t), t.TempDir()
	for name, text := range map[string]string{
		"env": "# comment\nFROM=file\nHOME\nNOTHING_OF_THAT_NAME\n", "ca.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOME", peer.home)
	for line := range strings.Lines(strings.TrimSpace(swarmLines)) {
		args := fields(strings.ReplaceAll(strings.TrimSpace(line), "$DIR", dir))
		cmd := exec.CommandContext(t.Context(), peer.path, append([]string{"-H", m.host}, args...)...)
		cmd.Env = []string{"HOME=" + peer.home, "PATH=" + os.Getenv("PATH")}
		wantText, wantErr := cmd.CombinedOutput()
		want := m.take()

		var out bytes.Buffer
		c := cli.New(strings.NewReader(""), &out, &out)
		c.Env = func(name string) string { return map[string]string{"HOME": peer.home, "SAMPAN_HOST": m.host}[name] }
		root := newRootFor(c, args)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		out.WriteString(cli.Message(err))
		code := 0
		if wantErr != nil {
			code = cmd.ProcessState.ExitCode()
		}
		if c.Code(err) != code {
			t.Errorf("%s: code %d\n%s\ndocker has %d:\n%s", line, c.Code(err), &out, code, wantText)
		}
		if diff := gocmp.Diff(want, m.take(), unordered); diff != "" {
			t.Errorf("%s(-docker +sampan)\n%s", line, diff)
		}
	}
}

// unordered are generic resources, which docker's client takes from a map: two requests of its own differ.
var unordered = gocmp.FilterPath(func(p gocmp.Path) bool {
	at, ok := p.Last().(gocmp.MapIndex)
	return ok && at.Key().String() == "GenericResources"
}, gocmp.Transformer("sorted", func(list any) []string {
	var all []string
	if list, ok := list.([]any); ok {
		for _, one := range list {
			all = append(all, fmt.Sprint(one))
		}
	}
	slices.Sort(all)
	return all
}))

// fields splits a line at blanks, those in quotes of either kind apart.
func fields(line string) []string {
	var words []string
	for len(line) > 0 {
		word, rest, _ := strings.Cut(line, " ")
		if line[0] == '"' {
			end := 1
			for line[end] != '"' || line[end-1] == '\\' {
				end++
			}
			word, rest = strings.ReplaceAll(line[1:end], `\"`, `"`), line[end+1:]
		}
		words, line = append(words, word), strings.TrimLeft(rest, " ")
	}
	return words
}
