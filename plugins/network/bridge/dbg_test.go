package main
import ("testing";"os/exec";"fmt";"net/netip";"github.com/sampan-project/sampan/plugins/sdk")
func TestDbg(t *testing.T){
	d, n, o := newDriver(), newNetwork(t), newOutside(t)
	create(t, d, n)
	web, nsWeb := newEndpoint(t, n, 2,
		sdkPort("tcp", any4, 8080, 80), sdkPort("tcp", any6, 8080, 81))
	attach(t, d, n, web)
	serve(t, nsWeb, "tcp", "0.0.0.0:80")
	serve(t, nsWeb, "tcp", "[::]:81")
	sh:=func(s string){ b,_:=exec.Command("sh","-c",s).CombinedOutput(); fmt.Println(string(b)) }
	sh("nft list ruleset; sysctl net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter; ip -6 addr; nft add table inet t; nft 'add chain inet t p {type filter hook prerouting priority -350;}'; nft 'add rule inet t p tcp dport {8080,80,81} meta nftrace set 1'; nft 'add rule inet t p tcp sport {80,81} meta nftrace set 1'; (timeout 3 nft monitor trace > /tmp/trace.txt &) ; sleep 0.5")
	
	in(t,nsWeb,func() error { sh("python3 /tmp/cap.py > /tmp/c1.txt 2>&1 & sleep 0.3"); return nil}); sh("python3 /tmp/cap.py > /tmp/c2.txt 2>&1 & sleep 0.3")
_,err:=call(t, nsWeb, "tcp", hostPort(o.host, 8080)); fmt.Println(err)
	sh("sleep 3; cat /tmp/c1.txt; echo; cat /tmp/c2.txt; ip neigh; ip route"); in(t,nsWeb,func() error { sh("ip route; ip neigh; cat /proc/net/snmp | grep ^Ip: ; grep ^TcpExt /proc/net/netstat"); return nil })
}
func sdkPort(p string, a netip.Addr, h, c uint16) sdk.Port { return sdk.Port{Protocol:p,HostAddress:a,HostPort:h,ContainerPort:c} }
