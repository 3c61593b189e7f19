use super::*;

fn name(text: &str) -> Arc<ObjectName> {
    Arc::new(ObjectName::new("ns", text))
}

fn key(port: u16) -> FrontendKey {
    FrontendKey::new(Addr::from_v4([10, 96, 0, 1]), Port::new(port), Proto::TCP)
}

/// Adds a claim; returns who is concerned.
fn add(claims: &mut Claims, key: FrontendKey, role: Role, created: i64, service: &str) -> Vec<String> {
    let mut concerned = BTreeSet::new();
    claims.add(key, Claim { role, created, service: name(service) }, &mut concerned);
    concerned.iter().map(|name| name.name.to_string()).collect()
}

fn winner(claims: &Claims, key: FrontendKey, role: Role, service: &str) -> String {
    claims.winner(key, role, &name(service)).map_or_else(|| "nobody".into(), |name| name.name.to_string())
}

#[test]
fn role_then_age_then_name() {
    let mut claims = Claims::default();
    assert!(add(&mut claims, key(80), Role::ExternalIp, 1, "a").is_empty());
    assert_eq!(winner(&claims, key(80), Role::ExternalIp, "a"), "a");
    for (role, created, service) in [
        (Role::ExternalIp, 0, "b"),
        (Role::LoadBalancer, 9, "z"),
        (Role::LoadBalancer, 9, "y"),
        (Role::NodePort, 9, "n"),
        (Role::ClusterIp, 9, "c"),
    ] {
        assert!(!add(&mut claims, key(80), role, created, service).is_empty());
        assert_eq!(winner(&claims, key(80), Role::ExternalIp, "a"), service);
    }
    assert_eq!(winner(&claims, key(81), Role::NodePort, "a"), "nobody");
}

#[test]
fn all_claimants_of_a_frontend_are_concerned() {
    let mut claims = Claims::default();
    add(&mut claims, key(80), Role::NodePort, 1, "a");
    assert_eq!(add(&mut claims, key(80), Role::NodePort, 2, "b"), ["a"]);
    assert_eq!(add(&mut claims, key(80), Role::NodePort, 3, "c"), ["a", "b"]);
    let mut concerned = BTreeSet::new();
    claims.remove(key(80), Claim { role: Role::NodePort, created: 1, service: name("a") }, &mut concerned);
    assert_eq!(concerned, [name("b"), name("c")].into());
    assert_eq!(winner(&claims, key(80), Role::NodePort, "c"), "b");
}

#[test]
fn a_cluster_ip_belongs_to_its_service_with_all_ports() {
    let address = FrontendKey::address(key(0).addr);
    let mut claims = Claims::default();
    add(&mut claims, key(9), Role::ExternalIp, 1, "thief");
    assert_eq!(winner(&claims, key(9), Role::ExternalIp, "thief"), "thief");
    assert_eq!(add(&mut claims, address, Role::ClusterIp, 5, "owner"), ["thief"]);
    assert_eq!(winner(&claims, key(9), Role::ExternalIp, "thief"), "owner");
    assert_eq!(winner(&claims, key(9), Role::ExternalIp, "owner"), "thief", "its own address is no obstacle");
}
