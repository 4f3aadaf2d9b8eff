//! The lab itself: what it says is so.

#[test]
fn two_hosts_are_attached() {
    lab::run("two_hosts_are_attached", async |lab| {
        let lan = lab.segment("lan").await?;
        let one = lab.host("one").await?;
        assert_eq!(
            lan.attach(&one, &["10.0.0.1/24", "fd00::1/64"]).await?,
            "eth0"
        );
        let eth0 = one.interface("eth0").await?;
        assert!(eth0.up && eth0.carrier, "{eth0:?}");
        lan.cut(&one).await?;
        assert!(one.interface("eth0").await?.carrier, "a cut is silent");
        lan.unplug(&one).await?;
        lab::wait_until(
            std::time::Duration::from_secs(5),
            "no carrier",
            async || one.interface("eth0").await.is_ok_and(|i| !i.carrier),
        )
        .await?;
        lan.heal(&one).await?;
        Ok(())
    });
}
