//! Interfaces come, go and change.

use std::time::Duration;

use lab::{wait_for, wait_until};

use crate::support::{SOON, Stage, ip};

#[test]
fn an_interface_that_goes_and_comes_takes_its_address_along() {
    lab::run(
        "links::an_interface_that_goes_and_comes_takes_its_address_along",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let owner = stage.owner(address).await?;
            let host = stage.scene.node(&owner).host.clone();
            // Set down on the host itself, then without a cable.
            let index = host.netlink().index_of("eth0").await?;
            host.netlink().set_down(index).await?;
            stage.owner_but(address, &owner).await?;
            host.netlink().set_up(index).await?;
            wait_until(SOON, "the owner to have it back", async || {
                stage.owner(address).await.is_ok_and(|now| now == owner)
            })
            .await?;
            stage.scene.lan.unplug(&host).await?;
            stage.owner_but(address, &owner).await?;
            stage.scene.lan.heal(&host).await?;
            wait_until(SOON, "the owner to have it back again", async || {
                stage.owner(address).await.is_ok_and(|now| now == owner)
            })
            .await?;
            Ok(())
        },
    );
}

#[test]
fn a_new_ethernet_address_is_told() {
    lab::run("links::a_new_ethernet_address_is_told", async |lab| {
        let mut stage = Stage::build(&lab, 2).await?;
        stage.serve("one")?;
        stage.start()?;
        let address = ip("10.0.0.101");
        let owner = stage.owner(address).await?;
        stage.scene.page(address).await?;
        let host = stage.scene.node(&owner).host.clone();
        let index = host.netlink().index_of("eth0").await?;
        let new = [0x02, 0x1a, 0xb0, 0, 0x77, 0x77];
        host.netlink().set_mac(index, new).await?;
        wait_for(SOON, "an answer with the new address", async || {
            let found = stage
                .client()
                .who_has("eth0", address, Duration::from_millis(60))
                .await;
            match found {
                Ok(macs) if macs == [new] => Ok(()),
                other => Err(format!("{other:02x?}")),
            }
        })
        .await?;
        // The client has learnt it without asking: its entry was a good one.
        wait_for(SOON, "the client to know it", async || {
            let known = stage.client().netlink().neighbours().await;
            let known = known.map_err(|error| error.to_string())?;
            let entry = known.into_iter().find(|entry| entry.ip == address);
            match entry {
                Some(entry) if entry.mac == Some(new) => Ok(()),
                other => Err(format!("{other:02x?}")),
            }
        })
        .await?;
        Ok(())
    });
}

#[test]
fn an_interface_that_is_added_later_is_announced_on() {
    lab::run(
        "links::an_interface_that_is_added_later_is_announced_on",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let owner = stage.owner(address).await?;
            let other = lab.segment("other").await?;
            let client = lab.host("other-client").await?;
            other.attach(&client, &["10.9.0.9/24"]).await?;
            let host = stage.scene.node(&owner).host.clone();
            let device = other.attach(&host, &["10.9.0.1/24"]).await?;
            let mac = host.mac(&device).await?;
            wait_for(SOON, "an answer on the new interface", async || {
                let found = client
                    .who_has("eth0", address, Duration::from_millis(60))
                    .await;
                match found {
                    Ok(macs) if macs == [mac] => Ok(()),
                    other => Err(format!("{other:02x?}")),
                }
            })
            .await?;
            // Nothing changed on the first.
            assert_eq!(stage.owner(address).await?, owner);
            Ok(())
        },
    );
}
